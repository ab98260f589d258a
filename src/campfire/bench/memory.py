"""Peak memory of training: each network in a process of its own, since a process never forgets its peak."""

import contextlib
import ctypes
import gc
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from campfire.bench.nets import Step, compressed, dense_net, images
from campfire.compress import tune_
from campfire.errors import CampfireError

KINDS = ("dense", "sparse")


def peak_memory(model: str, structure: str, sparsity: float, batch: int, size: int) -> dict[str, float]:
    """Most MB (10^6 bytes) resident in two training steps, dense and compressed, and with libraries alone (``idle``).

    Compression and `campfire.tune_` happen in the same process, before the steps; on Linux their own peak is not
    counted. Activations are stored for both alike: what a compressed network saves is weights, gradients and optimizer
    state, less what its kernels need while they run.

    Raises:
        CampfireError: a process fails.
    """
    cases = [{"kind": k, "model": model, "structure": structure, "sparsity": sparsity} for k in KINDS]
    found = [_child({**case, "batch": batch, "size": size, "threads": torch.get_num_threads()}) for case in cases]
    return {"idle": found[0]["idle"], **{kind: x["peak"] for kind, x in zip(KINDS, found, strict=True)}}


def _child(case: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "campfire.bench.memory", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CampfireError(f"the process that measures the memory of {case} failed:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(case: dict[str, Any]) -> dict[str, float]:
    torch.set_num_threads(case["threads"])
    idle, net = _peak(), dense_net(case["model"])
    x = images(case["batch"], case["size"])
    if case["kind"] == "sparse":
        net = compressed(net, case["structure"], case["sparsity"]).net
        tune_(net, x, training=True)
    _forget()
    step = Step(net, x, torch.randint(1000, (case["batch"],)))
    for _ in range(2):  # momentum exists from the first step on
        step()
    return {"idle": idle, "peak": _peak()}


def _forget() -> None:
    """Give back what is free, and let the peak be what is resident then (Linux, glibc)."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    status = Path("/proc/self/status")  # getrusage would count the process that started this one, too
    if status.exists():
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmHWM")) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]))))
