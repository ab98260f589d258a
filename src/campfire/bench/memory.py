"""Memory of training: what parameters hold, and the peak; on a CPU each network in a process of its own, since a process
never forgets its peak."""

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
from torch import Tensor, nn
from torch.optim import Optimizer

from campfire.bench.nets import Step, compressed, dense_net, images, pruned
from campfire.compress import compress_, tune_
from campfire.errors import CampfireError

KINDS = ("dense", "sparse")


def peak_memory(
    model: str, structure: str, sparsity: float, batch: int, size: int, device: torch.device | None = None
) -> dict[str, float]:
    """Most MB (10^6 bytes) resident in two training steps, dense and compressed, and with libraries alone (``idle``).

    Compression and `campfire.tune_` happen in the same process, before the steps; on Linux their own peak is not
    counted. Activations are stored for both alike: what a compressed network saves is weights, gradients and optimizer
    state, less what its kernels need while they run. On a GPU its allocator tells, and ``idle`` is 0.

    Raises:
        CampfireError: a process fails.
    """
    cases = [{"kind": k, "model": model, "structure": structure, "sparsity": sparsity} for k in KINDS]
    own = device is None or device.type == "cpu"
    more = {"batch": batch, "size": size, "threads": torch.get_num_threads(), "device": "cpu" if own else str(device)}
    found = [(_child if own else _measure)({**case, **more}) for case in cases]
    return {"idle": found[0]["idle"], **{kind: x["peak"] for kind, x in zip(KINDS, found, strict=True)}}


def _child(case: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "campfire.bench.memory", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CampfireError(f"the process that measures the memory of {case} failed:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(case: dict[str, Any]) -> dict[str, float]:
    device = torch.device(case["device"])
    torch.set_num_threads(case["threads"])
    _forget(device)
    idle, net = _peak(device), dense_net(case["model"], device=device)
    x = images(case["batch"], case["size"]).to(device)
    if case["kind"] == "sparse":
        net = compressed(net, case["structure"], case["sparsity"]).net
        tune_(net, x, training=True)
    _forget(device)
    step = Step(net, x, torch.randint(1000, (case["batch"],), device=device))
    for _ in range(2):  # momentum exists from the first step on
        step()
    return (
        {"idle": 0.0, "peak": _peak(device) - idle} if device.type == "cuda" else {"idle": idle, "peak": _peak(device)}
    )


def held(net: nn.Module, optimizer: Optimizer) -> dict[str, int]:
    """Bytes of weights, of gradients and of optimizer state; and of all that is allocated, where a GPU tells (else 0).

    >>> layer = nn.Linear(8, 4, bias=False)
    >>> held(layer, torch.optim.SGD(layer.parameters(), lr=0.1))
    {'weights': 128, 'gradients': 0, 'optimizer': 0, 'allocated': 0}
    """
    parameters = list(net.parameters())
    state = [x for p in parameters for x in optimizer.state.get(p, {}).values() if isinstance(x, Tensor)]
    device = parameters[0].device
    return {
        "weights": sum(p.nbytes for p in parameters),
        "gradients": sum(p.grad.nbytes for p in parameters if p.grad is not None),
        "optimizer": sum(x.nbytes for x in state),
        "allocated": torch.cuda.memory_allocated(device) if device.type == "cuda" else 0,
    }


def saved(model: str, structure: str, sparsity: float, device: torch.device) -> dict[str, Any]:
    """What a network in training holds before and after `compress_`, see `held`; and its indices, in bytes."""
    net = dense_net(model, device=device)
    pruner, optimizer = pruned(net, structure, sparsity)
    _forget(device)
    before = held(net, optimizer)
    report = compress_(net, pruner, optimizer)
    _forget(device)
    return {"before": before, "after": held(net, optimizer), "indices": sum(row.indices for row in report.layers)}


def _forget(device: torch.device) -> None:
    """Give back what is free, and let the peak be what is resident then (on a CPU: Linux, glibc)."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")  # getrusage would count the process that started this one, too
    if status.exists():
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmHWM")) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(json.loads(sys.argv[1]))))
