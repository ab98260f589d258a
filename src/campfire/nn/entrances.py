"""Entrances: where activations change their memory format once, for everyone inside who reads them.

A layer in another format turns its own input, and the shortcut around it would stay as it was: sums of tensors that lie
differently are many times slower. So the outermost module that is handed the tensor turns it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from campfire.kernels.turning import turn


class Entrance:
    """A forward pre-hook: the module's first input in a memory format, where it computes in ``dtype`` on a CPU."""

    def __init__(self, format: str, dtype: torch.dtype):
        self.format, self.dtype = format, dtype

    def __call__(self, module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (enter(given[0], self.format, self.dtype), *given[1:]) if given else None


def enter(x: Any, format: str, dtype: torch.dtype) -> Any:
    """x in a format, if it is [N, C, H, W] that is computed with in ``dtype``, on a CPU; else x itself.

    >>> enter(torch.zeros(2, 3, 4, 4), "chwn", torch.float32).stride()
    (1, 32, 8, 2)
    """
    if isinstance(x, fx.Proxy):  # traced: a call in the graph, at this very place
        return x.tracer.create_proxy("call_function", enter, (x, format, dtype), {})
    return turn(x, format) if _wanted(x, dtype) else x


def _wanted(x: Any, dtype: torch.dtype) -> bool:
    if not isinstance(x, Tensor) or x.dim() != 4 or x.device.type != "cpu":
        return False
    cast = torch.is_autocast_enabled("cpu")
    return (torch.get_autocast_dtype("cpu") if cast else x.dtype) == dtype and x.numel() > 0


def open_(model: nn.Module, formats: Mapping[str, str], dtype: torch.dtype) -> None:
    """Make modules, by name, entrances to a format; entrances of that dtype that the model has are removed before.

    >>> model = nn.Sequential(nn.ReLU())
    >>> open_(model, {"0": "chwn"}, torch.float32)
    >>> entrances(model)
    {'0': 'chwn'}
    """
    close_(model, dtype)
    for name, format in formats.items():
        model.get_submodule(name).register_forward_pre_hook(Entrance(format, dtype))


def close_(model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Remove the entrances of a dtype, or all."""
    for module in model.modules():
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, Entrance) and dtype in (None, hook.dtype):
                del module._forward_pre_hooks[key]


def entrances(model: nn.Module) -> dict[str, str]:
    """The format of every module that is an entrance, by name."""
    hooks = [(name, hook) for name, m in model.named_modules() for hook in m._forward_pre_hooks.values()]
    return {name: hook.format for name, hook in hooks if isinstance(hook, Entrance)}
