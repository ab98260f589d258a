"""What the model benchmark times: a network dense and compressed, its inference copies, and a training step of it."""

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from campfire import models
from campfire.compress import compress_
from campfire.errors import LostOutputs, UsageError
from campfire.fusion import fuse
from campfire.pruner import Pruner
from campfire.schedules import OneShot

RATE = 1e-3


@dataclass(frozen=True)
class Compressed:
    """A compressed network, its memory (weights, gradients, optimizer state of the pruned layers) over the dense one's,
    and its true sparsity."""

    net: nn.Module
    memory_ratio: float
    sparsity: float


def dense_net(model: str, seed: int = 0, device: str | torch.device = "cpu") -> nn.Module:
    """A model by name, with random weights, in channels_last."""
    torch.manual_seed(seed)
    return models.create(model, num_classes=1000).to(device, memory_format=torch.channels_last)  # pyright: ignore


def compressed(dense: nn.Module, structure: str, sparsity: float) -> Compressed:
    """A copy in which every layer that the structure is meant for, and fits, holds its survivors alone."""
    net = copy.deepcopy(dense)
    pruner, optimizer = pruned(net, structure, sparsity)
    true, report = pruner.sparsity, compress_(net, pruner, optimizer)
    return Compressed(net, report.after / max(1, report.before), true)


def pruned(net: nn.Module, structure: str, sparsity: float) -> tuple[Pruner, torch.optim.Optimizer]:
    """The pruner, its masks frozen after one step without gradients, and the optimizer it is attached to.

    Raises:
        UsageError: the structure fits none of the layers.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    pruner = Pruner(net, structure, OneShot(0, sparsity)).attach(optimizer, steps_per_epoch=1)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostOutputs)  # random weights: nothing to warn of
        optimizer.step()
    return pruner, optimizer


@dataclass(frozen=True)
class Pair:
    """A network dense and compressed, and the images it takes."""

    structure: str
    asked: float  # sparsity
    dense: nn.Module
    sparse: Compressed
    size: int
    channels: int = 3

    def images(self, batch: int) -> Tensor:
        """Random images of its kind, where the networks are."""
        return images(batch, self.size, self.channels).to(next(self.dense.parameters()).device)

    def to(self, device: torch.device) -> "Pair":
        """The same, its networks on a device."""
        self.dense.to(device)
        self.sparse.net.to(device)
        return self


def of_run(path: str | Path) -> Pair:
    """The network that a run trained: as it is, with zeros in its dense weights, and compressed.

    Raises:
        UsageError: it was not pruned, or its masks still change.
        CheckpointError: it is damaged.
    """
    from campfire.training import load_run  # with all that configurations need

    dense, sparse = load_run(path), load_run(path)
    if sparse.pruner is None:
        raise UsageError(f"{path} is a dense run; give one whose layers were pruned")
    report, true = compress_(sparse.model, sparse.pruner), sparse.pruner.sparsity
    for net in (dense.model, sparse.model):
        net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    ours = Compressed(sparse.model, report.after / max(1, report.before), true)
    pruning = sparse.config.pruning
    return Pair(pruning.structure, pruning.sparsity, dense.model, ours, sparse.image_size, sparse.channels)


def images(batch: int, size: int, channels: int = 3) -> Tensor:
    """Random images [N, channels, size, size] in channels_last."""
    return torch.randn(batch, channels, size, size).contiguous(memory_format=torch.channels_last)


class Step:
    """A training step of one network: forward, backward, SGD with momentum; with a ``dtype`` under autocast."""

    def __init__(self, net: nn.Module, x: Tensor, labels: Tensor, dtype: torch.dtype | None = None):
        self.net, self.x, self.labels, self.dtype = net, x, labels, dtype
        self.optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)

    def __call__(self) -> None:
        self.net.train()
        self.optimizer.zero_grad()
        with torch.autocast(self.x.device.type, self.dtype, enabled=self.dtype is not None, cache_enabled=False):
            loss = cross_entropy(self.net(self.x).float(), self.labels)
        loss.backward()
        self.optimizer.step()


class Inference:
    """A fused copy of a network on one batch, in the dtype of its weights; it takes and is handed float32 images."""

    def __init__(self, net: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32):
        self.net, self.x, self.dtype = fuse(net, dtype), x, dtype

    def __call__(self) -> Tensor:
        with torch.inference_mode():
            return self.net(self.x.to(self.dtype))


class Compiled(Inference):
    """The same behind ``torch.compile`` with frozen weights: oneDNN on weights in its own order, ReLUs and sums fused.

    It is compiled here, for this very size.
    """

    def __init__(self, net: nn.Module, x: Tensor, dtype: torch.dtype = torch.float32):
        import torch._inductor.config  # a second that nobody else needs

        super().__init__(net, x, dtype)
        self.net = torch.compile(self.net, dynamic=False)
        with torch._inductor.config.patch(freezing=True):  # as an option it would not reach the tracing
            self()

    def __call__(self) -> Tensor:
        with torch.no_grad():
            return self.net(self.x.to(self.dtype))
