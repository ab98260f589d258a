"""Models and layers out of what is wrapped around them: DDP, averages, and ``torch.compile``, also of single parts."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

T = TypeVar("T")


def bare(model: nn.Module) -> nn.Module:
    """The user's own module, out of DDP, `torch.compile` and averaging wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, DistributedDataParallel | DataParallel | AveragedModel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def unwrapped(name: str) -> str:
    """The name of a module or a tensor, without what ``torch.compile`` put into it.

    >>> unwrapped("1._orig_mod.0.weight")
    '1.0.weight'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def named_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every module of a model, wrapped or not, by the name that it had before parts were compiled; one with two names by its first."""
    for name, module in bare(model).named_modules():
        if not hasattr(module, "_orig_mod"):  # a wrapper answers for what is in it, which would come twice
            yield unwrapped(name), module


def as_written() -> AbstractContextManager[object]:
    """In it, compiled parts run uncompiled: a copy of a model would compile anew. Where dynamo (slow to import) is not loaded, nothing is."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def by_layer(model: nn.Module, given: Mapping[str, T]) -> dict[str, T]:
    """What is given by layer, by the names of `named_layers`; those of ``model.named_modules()`` are understood, too.

    A name that no module has stays as it is, for the caller to refuse.

    >>> net = nn.Sequential(AveragedModel(nn.ReLU()))
    >>> by_layer(AveragedModel(net), {"0": 1, "module.0.module": 2, "x": 3})
    {'0': 1, '0.module': 2, 'x': 3}
    """
    names = {id(module): name for name, module in named_layers(model)}
    known = set(names.values())
    return {name if name in known else _layer_name(model, name, names): value for name, value in given.items()}


def _layer_name(model: nn.Module, name: str, names: Mapping[int, str]) -> str:
    try:
        module = bare(model.get_submodule(name))
    except AttributeError:
        return name
    return names.get(id(module), name)
