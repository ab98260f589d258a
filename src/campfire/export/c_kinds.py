"""Which calls of a network have C: their kind, and what else it needs; of others the reason."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from campfire.fusion.effects import is_relu, is_sum
from campfire.fusion.rewriting import rows
from campfire.nn import BatchNorm2d, MaxPool2d

Found = tuple[str, dict[str, Any]] | str
SAME = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten, nn.Unflatten)
VIEWS = ("flatten", "unflatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous")
JOINS = (torch.cat, torch.concat)
AXES = {"conv": 4, "affine": 4, "max_pool": 4, "mean_pool": 4, "spread_mean": 4, "linear": 2}  # with the batch


def is_same(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether it gives back the numbers it reads, in their order."""
    if module is not None or node.op == "call_module":
        return type(module) in SAME  # subclasses may have a forward of their own
    if any(isinstance(given, torch.dtype) for given in (*node.args, *node.kwargs.values())):
        return False
    if node.op == "call_method":
        return node.target in VIEWS
    return node.target is rows or any(node.target is getattr(torch, name, None) for name in VIEWS)


def why_not_sizes(kind: str, makes: tuple[int, ...], reads: Sequence[tuple[int, ...]]) -> str | None:
    """Why a step is not served on results of these shapes, the batch of one first; None when it is."""
    if kind in AXES and len(reads[0]) != AXES[kind]:
        return f"it is served on {AXES[kind]} axes; got {list(reads[0])}"
    if kind == "sum" and any(size != makes for size in reads):
        return f"sums are served of equal shapes; got {' and '.join(str(list(size)) for size in reads)}"
    return None


def module_step(module: nn.Module) -> Found:
    """What a module does to an image, or why there is no C for it."""
    makers: dict[type, Callable[[Any], Found]] = {
        nn.Conv2d: _conv,
        nn.Linear: lambda m: ("linear", {}),
        nn.ReLU: lambda m: ("relu", {}),
        nn.BatchNorm2d: _norm,
        BatchNorm2d: _norm,
        nn.MaxPool2d: _max_pool,
        MaxPool2d: _max_pool,
        nn.AvgPool2d: _mean_pool,
        nn.AdaptiveAvgPool2d: lambda m: ("spread_mean", {}),
    }
    if type(module) not in makers:
        return f"there is no C for {type(module).__name__}"
    return makers[type(module)](module)


def function_step(node: fx.Node, modules: Mapping[str, nn.Module]) -> Found:
    """What a function or a method does, or why there is no C for it."""
    if is_relu(node, modules):
        return "relu", {}
    if is_sum(node):
        return "sum", {}
    if node.target in (torch.nn.functional.adaptive_avg_pool2d,):
        return "spread_mean", {}
    if node.target in (torch.mean, "mean") and _both_axes(node):
        return "spread_mean", {}
    if node.target in JOINS and 1 in (*node.args[1:], node.kwargs.get("dim")):
        return "join", {}
    name = getattr(node.target, "__name__", str(node.target))
    return f"there is no C for {name}" if node.op != "get_attr" else "there is no C for tensors of the model's own"


def _both_axes(node: fx.Node) -> bool:
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    return isinstance(axes, (tuple, list)) and sorted(int(a) % 4 for a in axes) == [2, 3]  # pyright: ignore


def _conv(m: nn.Conv2d) -> Found:
    if m.padding_mode != "zeros" or isinstance(m.padding, str):
        return f"padding {m.padding!r} by {m.padding_mode} is not served, only numbers of zeros"
    return "conv", {}


def _norm(m: nn.BatchNorm2d) -> Found:
    return ("affine", {}) if m.running_mean is not None else "it has no running statistics"


def _max_pool(m: nn.MaxPool2d) -> Found:
    if m.return_indices or _pair(m.dilation) != (1, 1):
        return "dilation and indices are not served"
    return "max_pool", _window(m)


def _mean_pool(m: nn.AvgPool2d) -> Found:
    if _pair(m.padding) != (0, 0) or m.ceil_mode or m.divisor_override:
        return "padding, ceil_mode and divisor_override are not served"
    return "mean_pool", _window(m)


def _window(m: nn.MaxPool2d | nn.AvgPool2d) -> dict[str, Any]:
    stride = m.kernel_size if m.stride is None else m.stride
    return {"window": _pair(m.kernel_size), "stride": _pair(stride), "padding": _pair(m.padding)}


def _pair(both: int | tuple[int, ...]) -> tuple[int, int]:
    return (both, both) if isinstance(both, int) else (both[0], both[1])
