"""Row orders that nobody restores: a regrouped layer leaves its outputs as they lie, and those who read them follow.

conv1, rows 0 3 1 2 --> y in order 0 1 2 3 --> conv2           channels of y written one by one
conv1, rows 0 3 1 2 --> y as it lies ------> conv2, inputs 0 3 1 2
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from campfire.errors import DoesNotFit
from campfire.fusion.effects import is_plain, is_relu, is_sum
from campfire.mask import Mask
from campfire.nn import MaxPool2d, SparseConv2d
from campfire.nn.entrances import enter
from campfire.packed import pack
from campfire.packed.tile import read_tile

ALIKE = (  # what they do to one channel they do to every channel
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Hardswish, nn.Sigmoid, nn.Tanh),
    *(nn.MaxPool2d, MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
FUNCTIONS = (enter, F.max_pool2d, torch.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d)
LAYOUTS = ("grouped", "unit", "csr", "tap")  # whose inputs and outputs may have other numbers
Layer = SparseConv2d | nn.Conv2d


@dataclass
class Tensors:
    """Results that must have one order of channels, and the layers that make and read them."""

    why_fixed: str = ""
    makers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)


class Absorption:
    """The orders of one rewritten forward pass; others take the places of ``modules``, those of a copy.

    Args:
        why_not_own: reasons why the layer that a node calls cannot be changed for its sake.
        dtype: of the copy, by default that of each layer.
    """

    def __init__(
        self,
        graph: fx.Graph,
        modules: dict[str, nn.Module],
        why_not_own: Callable[[fx.Node, nn.Module], list[str]],
        dtype: torch.dtype | None = None,
    ):
        self.modules, self.why_not_own, self.dtype = modules, why_not_own, dtype
        self.changed: set[str] = set()
        self.absorbed: dict[str, str] = {}  # layer -> who reads its outputs as they lie
        self.restored: dict[str, str] = {}  # layer -> why it puts them in order
        for tensors in self._alike(graph):
            self._absorb(tensors)

    def _layer(self, node: fx.Node) -> Layer | None:
        """The convolution that a node calls, if its channels may have other numbers."""
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        if not isinstance(module, SparseConv2d | nn.Conv2d) or type(module) not in (SparseConv2d, nn.Conv2d):
            return None
        if self.why_not_own(node, module) or not set(node.kwargs) <= {"residual", "relu"}:
            return None
        known = not isinstance(module, SparseConv2d) or module.layout in LAYOUTS
        return module if known and module.groups == 1 and len(node.args) == 1 else None

    def _alike(self, graph: fx.Graph) -> Iterable[Tensors]:
        """Results in sets that share an order of channels: sums join them, and whatever else reads one fixes it."""
        first = {node: node for node in graph.nodes}

        def find(node: fx.Node) -> fx.Node:
            while first[node] is not node:
                node = first[node]
            return node

        calls, others = [], []
        for node in graph.nodes:
            inputs = node.all_input_nodes
            if self._layer(node) is not None:
                calls.append(node)
                inputs = [n for n in inputs if n is node.kwargs.get("residual")]
            elif not self._channelwise(node):
                others += [(n, node) for n in (node, *inputs)]
                continue
            for other in inputs:
                first[find(other)] = find(node)
        found = {find(node): Tensors() for node in graph.nodes}
        for node, by in others:
            found[find(node)].why_fixed = found[find(node)].why_fixed or f"{by} wants them so"
        for node in calls:
            found[find(node)].makers.append(str(node.target))
            found[find(node.args[0])].readers.append(str(node.target))
        return found.values()

    def _channelwise(self, node: fx.Node) -> bool:
        if is_relu(node, self.modules) or is_sum(node):
            return True
        if len(node.all_input_nodes) != 1:
            return False
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        return node.target in FUNCTIONS if module is None else type(module) in ALIKE and is_plain(module)

    def _absorb(self, tensors: Tensors) -> None:
        orders = {name: order for name in tensors.makers if (order := order_of(self.modules[name])) is not None}
        if not orders:
            return
        order = max(orders.values(), key=lambda one: sum(torch.equal(one, other) for other in orders.values()))
        same = [name for name, other in orders.items() if torch.equal(order, other)]
        found = {}
        if not (why := tensors.why_fixed or self._why_not_pay(tensors, same)):
            found, why = self._followed(tensors, order)
        self.modules.update(found)
        self.changed.update(found)
        done = same if found else []
        self.absorbed.update({name: ", ".join(tensors.readers) for name in done})
        self.restored.update({name: why or f"{same[0]} has another" for name in orders if name not in done})

    def _why_not_pay(self, tensors: Tensors, same: list[str]) -> str:
        ordered = [name for name in tensors.makers if getattr(self.modules[name], "layout", "") == "unit"]
        return f"{', '.join(ordered)} would have to follow" if len(ordered) >= len(same) else ""

    def _followed(self, tensors: Tensors, order: Tensor) -> tuple[dict[str, nn.Module], str]:
        """All their layers with channels in an order, or the reason why one cannot."""
        found: dict[str, nn.Module] = {}
        for names, axis in ((tensors.makers, 0), (tensors.readers, 1)):
            for name in names:
                layer = found.get(name, self.modules[name])
                assert isinstance(layer, SparseConv2d | nn.Conv2d)
                if (layer.out_channels, layer.in_channels)[axis] != len(order):
                    return {}, f"{name} has another number of channels"
                if (moved := renumbered(layer, order, axis, self.dtype)) is None:
                    return {}, f"{name} would run on another kernel"
                found[name] = moved
        return found, ""


def renumbered(layer: Layer, order: Tensor, axis: int, dtype: torch.dtype | None = None) -> Layer | None:
    """A layer for inference whose output (axis 0) or input (axis 1) j is ``order[j]`` of the layer; None: its kernel cannot.

    >>> conv, x = nn.Conv2d(3, 4, 1), torch.randn(1, 3, 2, 2)
    >>> moved = renumbered(renumbered(conv, torch.tensor([3, 1, 0, 2]), 0), torch.tensor([2, 0, 1]), 1)
    >>> torch.allclose(moved(x[:, [2, 0, 1]]), conv(x)[:, [3, 1, 0, 2]], atol=1e-6)
    True
    """
    bias = layer.bias if layer.bias is None or axis else nn.Parameter(layer.bias[order], requires_grad=False)
    if isinstance(layer, SparseConv2d):
        return _repacked(layer, order, axis, bias, dtype)
    moved = nn.Conv2d(**_sizes(layer), bias=False, device="meta").eval()  # draws no random numbers
    moved.weight, moved.bias = nn.Parameter(_along(layer.weight, order, axis), requires_grad=False), bias
    return moved


def _repacked(
    layer: SparseConv2d, order: Tensor, axis: int, bias: Tensor | None, dtype: torch.dtype | None
) -> SparseConv2d | None:
    """Tiles of one input: others would no longer lie side by side."""
    rows, options, layout = layer.mask.plan.get("order"), {}, layer.layout
    if layout in ("grouped", "unit"):
        k, c, r, s = read_tile(layer.packed.parts["tile"])
        options["tile"] = (k, 1 if axis else c, r, s)
    if axis == 0 and layout in ("grouped", "unit"):
        layout, options["order"] = "grouped", order.argsort()[torch.arange(len(order)) if rows is None else rows]
    elif rows is not None:
        options["order"] = rows
    weight, keep = _along(layer.weight, order, axis), layer.mask.keep.index_select(axis, order)
    try:
        moved = SparseConv2d(pack(weight, Mask(keep), layout, **options), bias, **_steps(layer), kernel=layer.kernel)
    except DoesNotFit:
        return None
    moved._assigned = dict(layer._assigned)
    moved._prepare()
    return moved.eval().requires_grad_(False) if moved.choice(dtype) == layer.choice(dtype) else None


def _along(weight: Tensor, order: Tensor, axis: int) -> Tensor:
    form = torch.channels_last if weight.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    return weight.detach().index_select(axis, order).contiguous(memory_format=form)


def _steps(layer: Layer) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}


def _sizes(layer: nn.Conv2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "padding_mode")
    return {**{name: getattr(layer, name) for name in names}, **_steps(layer)}


def order_of(layer: nn.Module) -> Tensor | None:
    """The order in which a layer computes its outputs, if it must restore their own."""
    if not isinstance(layer, SparseConv2d) or layer.layout != "grouped":
        return None
    order = layer.packed.parts["order"].long()
    return None if torch.equal(order, torch.arange(len(order), device=order.device)) else order
