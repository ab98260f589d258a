"""What runs in a model, in which order and on what: one pass over an example that leaves no trace."""

import contextlib
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

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
    entrance: str = ""  # the outermost module around it that was handed the same tensor; "": none


def record(model: nn.Module, x: Example) -> list[Visit]:
    """Run the model once in evaluation mode; buffers, modes, gradients and random generators stay as they are."""
    recorder = Recorder()
    hooks = [hook for name, module in model.named_modules() for hook in recorder.hooks(name, module)]
    try:
        with torch.no_grad(), modes_kept(model), buffers_kept(model), generators_kept(model):
            model.eval()
            model(*x) if isinstance(x, tuple) else model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return recorder.found()


class Recorder:
    """The calls that are under way, outermost first, with their first input; and the visits."""

    def __init__(self) -> None:
        self._under_way: list[tuple[str, Any]] = []
        self._visits: list[tuple[Visit, list[str]]] = []
        self._calls: Counter[str] = Counter()

    def hooks(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        def before(module: nn.Module, given: tuple[Any, ...]) -> None:
            self._calls[name] += 1
            x = given[0] if given else None
            if isinstance(module, (SparseLayer, _ConvNd)) and isinstance(x, Tensor):
                around = [other for other, its in self._under_way if its is x and other]
                self._visits.append((_visit(name, module, x), around))
            self._under_way.append((name, x))

        def after(*_: object) -> None:
            self._under_way.pop()

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after, always_call=True)]

    def found(self) -> list[Visit]:
        """Modules that run several times, on one tensor after another, are no entrances."""
        once = [[name for name in around if self._calls[name] == 1] for _, around in self._visits]
        return [
            replace(visit, entrance=names[0]) if names else visit
            for (visit, _), names in zip(self._visits, once, strict=True)
        ]


def _visit(name: str, module: nn.Module, x: Tensor) -> Visit:
    size = tuple(x.shape) if x.dim() == 4 else (1, *x.shape)
    if isinstance(module, SparseLinear):
        size = (x.numel() // x.shape[-1], x.shape[-1], 1, 1)
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
    return Visit(name, module, size, dtype)


@contextlib.contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Training or evaluation, module by module."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """Also of layers that count or average in evaluation mode."""
    held = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, before in held:  # by content: batch normalisation does not count its writes as versions
            if not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)


@contextlib.contextmanager
def generators_kept(model: nn.Module) -> Iterator[None]:
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
