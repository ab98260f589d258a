"""What a whole compressed model gains: inference and training steps beside dense float32 and dense bfloat16, in turns."""

import copy
import statistics
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from campfire import models
from campfire.bench.kernels import keep_memory
from campfire.bench.timing import interleaved, machine, ratio
from campfire.compress import compress_
from campfire.errors import LostOutputs
from campfire.pruner import Pruner
from campfire.schedules import OneShot

RATE = 1e-3


def bench_model(
    model: str = "resnet50",
    structure: str = "tiles",
    sparsity: float = 0.7,
    batches: Sequence[int] = (16, 1),
    rounds: int = 5,
    size: int = 224,
    seed: int = 0,
) -> dict[str, Any]:
    """Milliseconds of inference and of a training step (forward, backward, SGD with momentum), dense and compressed.

    All in channels_last. Every convolution but the first is pruned, as far as the structure fits. In inference
    batch normalisation is folded into neither side. Ratios are dense over sparse, round by round; ``dense_bf16_ratio``
    is dense bfloat16 (autocast) over sparse in float32, below 1 where bfloat16 wins; ``memory_ratio`` is weights, gradients
    and optimizer state of the pruned layers, after over before.
    """
    keep_memory()
    torch.manual_seed(seed)
    dense = models.create(model, num_classes=1000).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    sparse, memory, kernels, true = _compressed(dense, structure, sparsity)
    found: dict[str, Any] = {
        "model": model,
        "structure": structure,
        "sparsity": sparsity,
        "sparsity_true": true,
        "rounds": rounds,
        "kernels": kernels,
        "memory_ratio": memory,
    }
    for batch in batches:
        x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
        found[f"inference_{batch}"] = _three(dense, sparse, lambda net, x=x: _infer(net, x), rounds)
    x, labels = torch.randn(batches[0], 3, size, size), torch.randint(1000, (batches[0],))
    x = x.contiguous(memory_format=torch.channels_last)
    steps = {id(net): _Step(net, x, labels) for net in (dense, sparse)}
    found["train_step"] = _three(dense, sparse, lambda net: steps[id(net)](), rounds)
    first = found[f"inference_{batches[0]}"]
    return {
        **found,
        "inference_ratio": first["ratio"],
        "train_step_ratio": found["train_step"]["ratio"],
        "dense_bf16_ratio": {"inference": first["bf16_ratio"], "train_step": found["train_step"]["bf16_ratio"]},
        "machine": machine(),
    }


def _compressed(dense: nn.Module, structure: str, sparsity: float) -> tuple[nn.Module, float, dict[str, int], float]:
    """A compressed copy; its memory after over before; how many layers each kernel serves; its true sparsity."""
    net = copy.deepcopy(dense)
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    pruner = Pruner(net, structure, OneShot(0, sparsity)).attach(optimizer, steps_per_epoch=1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostOutputs)  # random weights: nothing to warn of
        optimizer.step()
    true = pruner.sparsity
    report = compress_(net, pruner, optimizer)
    served = [row.kernel for row in report.layers if row.kernel]
    return net, report.after / max(1, report.before), dict(Counter(served)), true


class _Step:
    """A training step of one model."""

    def __init__(self, net: nn.Module, x: Tensor, labels: Tensor):
        self.net, self.x, self.labels = net, x, labels
        self.optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)

    def __call__(self) -> None:
        self.net.train()
        self.optimizer.zero_grad()
        cross_entropy(self.net(self.x).float(), self.labels).backward()
        self.optimizer.step()


def _infer(net: nn.Module, x: Tensor) -> Tensor:
    net.eval()
    with torch.inference_mode():
        return net(x)


def _three(dense: nn.Module, sparse: nn.Module, run: Callable[[nn.Module], object], rounds: int) -> dict[str, float]:
    def bf16() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            run(dense)

    times = interleaved({"dense": lambda: run(dense), "dense_bf16": bf16, "sparse": lambda: run(sparse)}, rounds)
    medians = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    return {**medians, "ratio": ratio(times, "dense", "sparse"), "bf16_ratio": ratio(times, "dense_bf16", "sparse")}
