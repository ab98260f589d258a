"""``attack.json`` in a run directory: what attacks left of a run's accuracy.

::

    {"format": "campfire-attack-1",
     "run": "runs/ck", "model": "resnet20", "data": "CIFAR10", "structure": "ck",
     "sparsity_true": 0.6999,          zeros in the pruned layers; 0.0 of a dense run
     "weights": "5d0c...",             digest of the weights that were attacked
     "fingerprint": "8c1f...",         of the data set that the images are from, as in checkpoints
     "sample": "a41b...",              digest of the positions of the images: equal for runs that may be compared
     "images": 1000, "seed": 0, "device": "cpu", "compressed": false,
     "clean": {"top1": 88.3, "low": 86.1, "high": 90.2, "correct": 883, "images": 1000},
     "results": [
       {"attack": "fgsm", "norm": "linf", "space": "pixel", "eps": 0.0313725, "steps": 1, "step_size": 0.0313725,
        "restarts": 1, "start": null,
        "top1": 31.4, "low": 28.6, "high": 34.3, "correct": 314, "images": 1000, "seconds": 2.1}]}

``top1`` is the percentage of all images that are classified rightly both before and after the attack, ``low`` and ``high`` its
Wilson interval (95 %). ``eps`` is in units of ``space``: ``pixel``, where values lie in [0, 1], or ``normalised``, where they are
what the network sees. FGSM's distances share their ``seconds``. A curve is ``clean`` at eps 0 and all results that agree in `CURVE`
and, where that is not 2.5 eps / steps, in ``step_size``.
"""

import json
import math
from pathlib import Path
from typing import Any

from campfire.errors import CheckpointError

FILE = "attack.json"
FORMAT = "campfire-attack-1"
CURVE = ("attack", "norm", "space", "steps", "restarts", "start")  # results that agree in these are one curve
_SAME = {
    "weights": "other weights",
    "sample": "other images",
    "fingerprint": "another data set",
    "compressed": "other kernels",
}
_Z = 1.959963984540054  # the standard normal's 97.5 % point


def wilson(correct: int, images: int) -> tuple[float, float]:
    """The interval in percent that covers the true share with 95 % confidence (Wilson, 1927).

    >>> [round(bound, 1) for bound in wilson(0, 100)], [round(bound, 1) for bound in wilson(50, 100)]
    ([0.0, 3.7], [40.4, 59.6])
    """
    share, z2 = correct / images, _Z * _Z / images
    half = _Z * math.sqrt(share * (1 - share) / images + z2 / (4 * images))
    low, high = (share + z2 / 2 - half) / (1 + z2), (share + z2 / 2 + half) / (1 + z2)
    return 100 * max(0.0, low), 100 * min(1.0, high)


def accuracy(correct: int, images: int) -> dict[str, Any]:
    """``top1`` with its interval, in percent, and what it is computed from."""
    low, high = wilson(correct, images)
    return {"top1": 100 * correct / images, "low": low, "high": high, "correct": correct, "images": images}


def read(path: str | Path) -> dict[str, Any] | None:
    """The record in a run directory, or in a file; None where there is none.

    Raises:
        CheckpointError: it is something else.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        return None
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record["format"] == FORMAT and record["clean"]["images"] > 0 and isinstance(record["results"], list):
            return record
    except (ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(f"{file} is no record of attacks ({FORMAT}); make it anew with campfire attack --overwrite")


def why_another(old: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """The reasons that results of two records do not belong together, [] if they do."""
    return [reason for key, reason in _SAME.items() if old.get(key) != facts[key]]


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The new record with the old results that it does not replace."""

    def key(result: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(result.get(name) for name in (*CURVE, "eps", "step_size"))

    known = {key(result) for result in new["results"]}
    kept = [] if old is None else [result for result in old["results"] if key(result) not in known]
    return new | {"results": [*kept, *new["results"]]}
