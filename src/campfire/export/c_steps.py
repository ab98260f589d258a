"""What a network does to one image, step by step: the calls of its fused forward pass, with sizes, as C will run them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from campfire.errors import DoesNotFit
from campfire.fusion import fuse
from campfire.fusion.effects import is_plain, is_relu, is_sum
from campfire.nn import BatchNorm2d, MaxPool2d

Size = tuple[int, ...]
SAME = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.Flatten)


@dataclass
class Step:
    """One call: ``kind``, the values it reads and makes, and whatever else its kind needs."""

    kind: str
    name: str
    reads: list[str]
    makes: str
    size: Size  # of what it makes, without the batch
    module: nn.Module | None = None
    residual: str | None = None
    relu: bool = False
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Program:
    """The steps of a network; ``sizes`` of all values by name."""

    steps: list[Step]
    sizes: dict[str, Size]
    image: str
    result: str


def program(model: nn.Module, image: Tensor) -> Program:
    """The steps of a dense network in evaluation mode on an image [1, C, H, W].

    Raises:
        DoesNotFit: it does something that has no C here; every such call.
        UsageError: its forward pass takes steps that depend on its input.
    """
    fused = fuse(model)
    modules: dict[str, nn.Module] = dict(fused.named_modules())
    sizes = _sizes(fused, image)
    reading = _Reading(modules, sizes)
    for node in fused.graph.nodes:
        reading.take(node)
    if reading.refused:
        raise DoesNotFit("format 'c'", type(model).__name__, reading.refused)
    steps = _joined(reading.steps, reading.result)
    return Program(steps, {k: s[1:] for k, s in sizes.items()}, reading.image, reading.result)


def _sizes(fused: fx.GraphModule, image: Tensor) -> dict[str, Size]:
    """Of every result."""
    sizes: dict[str, Size] = {}

    class Sizing(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found = super().run_node(n)
            if isinstance(found, Tensor):
                sizes[n.name] = tuple(found.shape)
            return found

    with torch.no_grad():
        Sizing(fused).run(image)
    return sizes


class _Reading:
    """Steps of nodes, one after the other; ``same`` leads from a result to the memory that holds it."""

    def __init__(self, modules: Mapping[str, nn.Module], sizes: Mapping[str, Size]):
        self.modules, self.sizes = modules, sizes
        self.steps: list[Step] = []
        self.refused: list[str] = []
        self.same: dict[str, str] = {}
        self.image = self.result = ""

    def take(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.image = self.same[node.name] = node.name
        elif node.op == "output":
            (self.result,) = self._read(node) if len(node.all_input_nodes) == 1 else ("",)
            if not self.result:
                self.refused.append("it returns something else than one tensor")
        elif (reason := self._why_not(node)) is not None:
            self.refused.append(f"{node.format_node() or node}: {reason}")
            self.same[node.name] = node.name

    def _why_not(self, node: fx.Node) -> str | None:
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        if module is not None and not is_plain(module):
            return "it has hooks"
        if node.name not in self.sizes or self.sizes[node.name][0] != 1:
            return "it makes no tensor with the image as its first axis"
        if _is_same(node, module, self.sizes):
            self.same[node.name] = self._read(node)[0]
            return None
        found = _module_step(module) if module is not None else _function_step(node, self.modules)
        if isinstance(found, str):
            return found
        self.same[node.name] = node.name
        name = str(node.target) if module is not None else node.name
        kind, more = found
        self.steps.append(Step(kind, name, self._read(node), node.name, self.sizes[node.name][1:], module, more=more))
        return None

    def _read(self, node: fx.Node) -> list[str]:
        return [self.same[n.name] for n in node.all_input_nodes]


Found = tuple[str, dict[str, Any]] | str


def _is_same(node: fx.Node, module: nn.Module | None, sizes: Mapping[str, Size]) -> bool:
    """Whether it gives back the numbers it reads, in their order."""
    if isinstance(module, SAME):
        return True
    viewing = node.target in (torch.flatten, "flatten", "view", "reshape", "contiguous")
    if not viewing or not node.all_input_nodes:
        return False
    return sizes[node.all_input_nodes[0].name][0] == 1


def _module_step(module: nn.Module) -> Found:
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


def _function_step(node: fx.Node, modules: Mapping[str, nn.Module]) -> Found:
    if is_relu(node, modules):
        return "relu", {}
    if is_sum(node):
        return "sum", {}
    if node.target in (torch.nn.functional.adaptive_avg_pool2d,):
        return "spread_mean", {}
    if node.target in (torch.mean, "mean") and _both_axes(node):
        return "spread_mean", {}
    if node.target in (torch.cat, torch.concat) and 1 in (*node.args[1:], node.kwargs.get("dim")):
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


def _joined(steps: list[Step], result: str) -> list[Step]:
    """Sums and ReLUs move into the layer before them, where nobody else reads what it made."""
    done: list[Step] = []
    for step in steps:
        readers = {name: sum(name in (*s.reads, s.residual) for s in steps) for name in step.reads}
        layer = done[-1] if done else None
        joins = layer is not None and layer.kind in ("conv", "linear", "affine", "sum") and layer.makes in step.reads
        if layer is None or not joins or readers[layer.makes] != 1 or layer.makes == result or layer.relu:
            done.append(step)
        elif step.kind == "relu":
            layer.relu, layer.makes = True, step.makes
        elif step.kind == "sum" and layer.kind == "conv" and layer.residual is None and step.reads[0] != step.reads[1]:
            layer.residual = next(name for name in step.reads if name != layer.makes)
            layer.makes = step.makes
        else:
            done.append(step)
    return done
