"""Models and names out of what is wrapped around them: DDP, averages, and ``torch.compile``, also of single parts."""

from collections.abc import Iterator

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel


def bare(model: nn.Module) -> nn.Module:
    """The user's own module, out of DDP, `torch.compile` and averaging wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, (DistributedDataParallel, DataParallel, AveragedModel)):
            inner = model.module
        if inner is None:
            return model
        model = inner


def named_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """As ``named_modules``; parts that were compiled by themselves keep the names that they had before."""
    for name, module in model.named_modules():
        if not hasattr(module, "_orig_mod"):
            yield unwrapped(name), module


def unwrapped(name: str) -> str:
    """The name of a module or a tensor, without what ``torch.compile`` put into it.

    >>> unwrapped("1._orig_mod.0.weight")
    '1.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
