"""AutoAttack, by its authors' library (Croce and Hein 2020, arXiv 2003.01690)."""

import logging
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from campfire.errors import DoesNotFit, UsageError

PARTS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")  # what AutoAttack is made of
_NORMS = {"linf": "Linf", "l2": "L2"}
_SORTED = {"apgd-dlr": 3, "apgd-t": 4}  # their loss looks at this many of the largest logits


def autoattack(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, eps: float, *, norm: str = "linf", part: str | None = None,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """The standard AutoAttack (APGD on two losses, FAB, Square), or one part of it, on images in [0, 1].

    Images that are not misled come back as they were. It takes thousands of passes over every image.

    Args:
        model, x, y, eps, norm: as for `campfire.attack.fgsm`; ``x`` in [0, 1].
        part: one of `PARTS` alone.

    Raises:
        UsageError: the package is not installed.
        DoesNotFit: there are too few classes.
    """
    wanted = [part] if part else ["apgd-ce", "apgd-t", "fab-t", "square"]
    with torch.no_grad():
        classes = model(x[:1]).shape[1]
    require(classes, part)
    options = {"attacks": wanted, "version": "custom", "norm": _NORMS[norm], "eps": eps, "seed": seed}
    attack = _load()(cast(nn.Module, model), device=x.device, **options)
    attack.logger = logging.getLogger("campfire.attack.autoattack")
    attack.apgd.n_restarts = attack.fab.n_restarts = attack.apgd_targeted.n_restarts = 1
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = min(9, classes - 1)
    found, _ = attack.run_standard_evaluation(x.contiguous(), y, batch_size=len(x))
    return found


def why_not(classes: int, part: str | None = None) -> list[str]:
    """The reasons that AutoAttack, or a part of it, cannot attack a network of so many classes."""
    least = _SORTED.get(part, 2) if part else max(_SORTED.values())
    return [] if classes >= least else [f"its loss compares {least} classes; there are {classes}"]


def require(classes: int, part: str | None = None) -> None:
    """Raise `DoesNotFit` where a network has too few classes, and `UsageError` where the package is not installed."""
    if reasons := why_not(classes, part):
        raise DoesNotFit(part or "autoattack", "these images", reasons)
    _load()


def _load() -> Any:
    try:
        from pyautoattack import AutoAttack  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(f"AutoAttack is not installed ({error}); pip install 'campfire-sparse[attack]'") from None
    return AutoAttack
