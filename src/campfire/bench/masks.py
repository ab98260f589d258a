"""What masks cost: updates of all layers against `torch.topk` a layer, and re-application against touching memory."""

import statistics
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from campfire import models
from campfire.bench.cuda import by_events, device_of, host_milliseconds
from campfire.bench.timing import interleaved, machine, ratio
from campfire.errors import LostOutputs
from campfire.native import library
from campfire.native.gpu import masks as gpu
from campfire.pruner import Pruner
from campfire.schedules import OneShot
from campfire.selection import Part, keep_best_runs, unhurried
from campfire.structures import Structure, named
from campfire.structures.window import is_windowed

UPDATES = ("ck", "fine", "window")


def bench_masks(
    model: str = "resnet50", sparsity: float = 0.7, rounds: int = 9, seed: int = 0, device: str = "cpu"
) -> dict[str, Any]:
    """Milliseconds of one mask update of every convolution, for CK, fine and window, and of one re-application.

    Each update starts from masks that are 0.01 less sparse, as in the middle of an era, and includes the score. The
    baseline is the usual code: ``topk(sorted=True)`` in each layer, and a scatter. Re-application (weights and SGD
    momentum) is compared with one in-place multiplication of the same tensors, that is with reading and writing them once.

    ``device="cuda"``: times are those of the GPU, by events; ``ours_host_ms`` is what it takes the host to launch ours.

    Raises:
        UsageError: no GPU is there.
    """
    torch.manual_seed(seed)
    where = device_of(device)
    net = models.create(model, num_classes=10).to(where)
    weights = [m.weight.detach() for m in net.modules() if isinstance(m, nn.Conv2d)]
    result: dict[str, Any] = {"model": model, "sparsity": sparsity, "layers": len(weights), "rounds": rounds}
    result["native"] = gpu.serves(where) if where.type == "cuda" else library("masks") is not None
    for name in UPDATES:
        result[name] = _update(named(name), weights, sparsity, rounds)
    result["reapply"] = _reapply(net, sparsity, rounds)
    return {**result, "machine": machine(where)}


def _update(structure: Structure, weights: list[Tensor], sparsity: float, rounds: int) -> dict[str, float]:
    state = []
    for w in weights:
        shape, plan = tuple(w.shape), structure.plan(w.abs(), sparsity)
        before = structure.project(w.abs(), structure.count(shape, sparsity - 0.01), plan, torch.ones_like(w).bool())
        state.append((w, structure.count(shape, sparsity), plan, before))

    together = [Part(w, alive, count, structure.run(tuple(w.shape))) for w, count, _, alive in state]
    at_once = all(part.grain for part in together) and gpu.serves(weights[0].device)

    def ours() -> None:
        with unhurried():
            if at_once and keep_best_runs(together) is not None:
                return
            for w, count, plan, alive in state:
                structure.project(w.abs(), count, plan, alive)

    def topk() -> None:
        for w, count, _, alive in state:
            _by_topk(structure, w, count, alive)

    return _compared({"ours": ours, "topk": topk}, rounds, weights[0].device)


def _by_topk(structure: Structure, weight: Tensor, count: int, alive: Tensor) -> Tensor:
    """The same mask by the usual code."""
    score, taps = weight.abs() * alive, weight.shape[2] * weight.shape[3]
    if structure.name == "window" and is_windowed(tuple(weight.shape)):
        rows, kept = score.flatten(2).flatten(0, 1), count * taps // weight.numel()
    elif structure.name == "fine":
        rows, kept = score.view(1, -1), count
    else:
        rows, kept = score.amax((2, 3)).view(1, -1), count // taps
    best = rows.topk(kept, dim=1, sorted=True).indices
    keep = torch.zeros_like(rows, dtype=torch.bool).scatter_(1, best, True)
    return keep.view(-1, 1).expand(-1, weight.numel() // keep.numel()).reshape(weight.shape)


def _reapply(net: nn.Module, sparsity: float, rounds: int) -> dict[str, float]:
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    optimizer = torch.optim.SGD([m.weight for m in convs], lr=1e-3, momentum=0.9)
    pruner = Pruner(net, {nn.Conv2d: "ck"}, OneShot(0, sparsity)).attach(optimizer, steps_per_epoch=1)
    for m in convs:
        m.weight.grad = torch.randn_like(m.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostOutputs)  # random weights: nothing to warn of
        optimizer.step()
    tensors = [t.detach() for m in convs for t in (m.weight, optimizer.state[m.weight]["momentum_buffer"])]

    def touch() -> None:
        for t in tensors:
            t.mul_(1.0)

    candidates: dict[str, Callable[[], object]] = {"ours": lambda: pruner.reapply(optimizer), "touch": touch}
    return _compared(candidates, 3 * rounds, tensors[0].device)


def _compared(candidates: Mapping[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of both, and the first over the second."""
    first, second = candidates
    times = (by_events if device.type == "cuda" else interleaved)(candidates, rounds)
    found = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    if (host := host_milliseconds(candidates[first], device, rounds)) is not None:
        found[f"{first}_host_ms"] = host
    return {**found, "ratio": ratio(times, first, second)}
