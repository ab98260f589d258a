"""What a network does to one image, step by step: the calls of its fused forward pass, with sizes, as C will run them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from campfire.errors import DoesNotFit
from campfire.export.c_kinds import JOINS, function_step, is_same, module_step, why_not_sizes
from campfire.fusion import fuse
from campfire.fusion.effects import is_plain, writes

Size = tuple[int, ...]


@dataclass
class Step:
    """One call: ``kind``, the values it reads and makes, and whatever else its kind needs.

    ``sees`` is the shape of the first value as the call sees it: a view of what was made.
    """

    kind: str
    name: str
    reads: list[str]
    makes: str
    size: Size  # of what it makes, without the batch
    sees: Size
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
    if reading.result == reading.image:  # nothing makes it
        size = sizes["output"][1:]
        reading.steps.append(Step("join", "output", [reading.image], "output", size, size))
        reading.result = "output"
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
    """Steps of nodes, one after the other; ``same`` leads from a result to the value that holds its numbers."""

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
            returned = node.args[0]
            if isinstance(returned, fx.Node) and returned.name in self.same:
                self.result = self.same[returned.name]
            else:
                self.refused.append("it returns something else than one tensor")
        elif (node.name in self.sizes or not _is_number(node)) and (reason := self._why_not(node)) is not None:
            self.refused.append(f"{node.format_node() or node}: {reason}")
            self.same[node.name] = node.name

    def _why_not(self, node: fx.Node) -> str | None:
        module = self.modules[str(node.target)] if node.op == "call_module" else None
        if module is not None and not is_plain(module):
            return "it has hooks"
        if self.sizes.get(node.name, ())[:1] != (1,):
            return "it makes no tensor with the image as its first axis"
        if is_same(node, module):
            self.same[node.name] = self.same[node.all_input_nodes[0].name]
            return None
        found = module_step(module) if module is not None else function_step(node, self.modules)
        if isinstance(found, str):
            return found
        return self._add(node, module, *found)

    def _add(self, node: fx.Node, module: nn.Module | None, kind: str, more: dict[str, Any]) -> str | None:
        nodes = _tensors(node)
        if strangers := [n for n in nodes if n.name not in self.sizes]:
            return f"it computes with {strangers[0]}, which is no tensor"
        makes, shapes = self.sizes[node.name], [self.sizes[n.name] for n in nodes]
        if reason := why_not_sizes(kind, makes, shapes):
            return reason
        reads, name = [self.same[n.name] for n in nodes], str(node.target) if module is not None else node.name
        self.steps.append(Step(kind, name, reads, node.name, makes[1:], shapes[0][1:], module, more=more))
        self.same[node.name] = node.name
        if kind in ("relu", "sum") and writes(node, self.modules):  # whoever holds what was written sees it changed
            self.same |= {n: node.name for n, value in self.same.items() if value == reads[0]}
        return None


def _tensors(node: fx.Node) -> list[fx.Node]:
    """What it reads, in its order; what is joined twice, twice."""
    if node.target not in JOINS:
        return node.all_input_nodes
    joined = node.args[0] if node.args else node.kwargs["tensors"]
    return [n for n in joined if isinstance(n, fx.Node)]  # pyright: ignore[reportGeneralTypeIssues, reportOptionalIterable]


def _is_number(node: fx.Node) -> bool:
    """Whether it tells of sizes, which are known, and computes nothing else."""
    about = node.op == "call_method" and node.target in ("size", "dim", "numel")
    shape = node.target is getattr and node.args[1:] in (("shape",), ("ndim",))
    return about or shape or (node.op == "call_function" and all(_is_number(n) for n in node.all_input_nodes))


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
