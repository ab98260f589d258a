"""What runs in a model, in which order and on what: one pass over an example that leaves no trace."""

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from campfire.nn import SparseLinear
from campfire.nn.base import SparseLayer

Example = Tensor | tuple[Any, ...]


@dataclass(frozen=True)
class Visit:
    """One call of a convolution or sparse layer, on an input [N, C, H, W] of ``size``."""

    name: str
    module: nn.Module
    size: tuple[int, ...]
    dtype: torch.dtype  # in which it computed


def record(model: nn.Module, x: Example) -> list[Visit]:
    """Run the model once in evaluation mode; buffers, modes, gradients and random generators stay as they are."""
    visits: list[Visit] = []
    hooks = [
        module.register_forward_pre_hook(_recorder(name, visits))
        for name, module in model.named_modules()
        if isinstance(module, (SparseLayer, _ConvNd))
    ]
    try:
        with torch.no_grad(), _evaluating(model), _buffers_kept(model), _generators_kept(model):
            model(*x) if isinstance(x, tuple) else model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return visits


def _recorder(name: str, visits: list[Visit]) -> Any:
    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        x = given[0]
        size = tuple(x.shape) if x.dim() == 4 else (1, *x.shape)
        if isinstance(module, SparseLinear):
            size = (x.numel() // x.shape[-1], x.shape[-1], 1, 1)
        dtype = x.dtype
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
        visits.append(Visit(name, module, size, dtype))

    return note


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """Also of layers that count or average in evaluation mode."""
    held = [(buffer, buffer.clone(), buffer._version) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, before, version in held:
            if buffer._version != version:
                buffer.copy_(before)


@contextlib.contextmanager
def _generators_kept(model: nn.Module) -> Iterator[None]:
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
