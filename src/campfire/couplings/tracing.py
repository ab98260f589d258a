"""Tracing: the eval-mode forward as a flat list of ATen calls, and the tensors they read.

`torch.export` and not `torch.fx.symbolic_trace`, because what is exact must be proven on what really runs: functions,
modules, forward hooks, computed weights (``weight_norm``, ``torch.nn.utils.prune``) and tied weights all end in the same
few hundred operators, in-place ones are made functional, every shape is known, and PyTorch itself says which operators
work point by point.
"""

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from campfire.errors import UsageError
from campfire.naming import bare, named_layers, unwrapped

Example = Tensor | tuple[Tensor, ...]


@dataclass
class Traced:
    """The calls of one forward pass; ``names`` and ``tensors`` belong to the nodes that are parameters or buffers.

    ``modules`` are named as pruners name them, whatever is compiled by itself.
    """

    model: nn.Module
    nodes: list[Node]
    names: dict[Node, str]
    tensors: dict[Node, Tensor]

    def __post_init__(self) -> None:
        self.modules = dict(named_layers(self.model))
        self._names = {id(module): name for name, module in self.modules.items()}
        self._owners = Counter(tensor.data_ptr() for module in self.model.modules() for tensor in _own(module))
        self._uses: Counter[int] = Counter()
        for node, tensor in self.tensors.items():
            self._uses[tensor.data_ptr()] += len(node.users)

    def owner(self, node: Node) -> tuple[str, str]:
        """The module that holds this tensor, by its first name in the model, and the tensor's name in the module."""
        path, _, attribute = self.names[node].rpartition(".")
        return self._names[id(self.model.get_submodule(path))], attribute

    def forward_of(self, node: Node) -> Callable[..., Any]:
        """The forward function of the module that holds this tensor, as it is now."""
        forward = self.modules[self.owner(node)[0]].forward
        return getattr(forward, "__func__", forward)

    def is_private(self, node: Node) -> bool:
        """Whether a single module holds this tensor and a single call reads it: only then may it be edited."""
        pointer = self.tensors[node].data_ptr()
        return self._owners[pointer] == 1 == self._uses[pointer]


def trace(model: nn.Module, example: Example) -> Traced:
    """Trace ``model(example)`` in eval mode; every training flag is put back.

    Raises:
        UsageError: the forward pass depends on the data, or does not accept the example.
    """
    args = example if isinstance(example, tuple) else (example,)
    model = bare(model)  # a compiled model is traced as it was written, and its layers have the names of its own
    with _eval_mode(model), _quiet():
        try:
            program = torch.export.export(model, args, strict=False).run_decompositions({})
        except Exception as error:
            raise UsageError(_untraceable(model, args, error)) from error
    return _bind(model, program)


def argument(node: Node, name: str) -> Any:
    """An argument of an ATen call by its schema name, its default where the call leaves it out, None if it has none."""
    for index, declared in enumerate(node.target._schema.arguments):  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]
        if declared.name == name:
            return node.args[index] if index < len(node.args) else node.kwargs.get(name, declared.default_value)
    return None


def shape(node: Node) -> tuple[int, ...]:
    """The shape of the tensor that a call returns."""
    return tuple(node.meta["val"].shape)


def label(node: Node) -> str:
    """What a person calls this call: the module it runs in, and the operator."""
    paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
    return ":".join([*map(unwrapped, paths[-1:]), operator_name(node)])


def operator_name(node: Node) -> str:
    """``add`` for ``aten.add.Tensor``."""
    return getattr(packet(node), "__name__", str(node.target))


def packet(node: Node) -> Any:
    """The operator of a call without its overload: ``aten.add`` for ``aten.add.Tensor``."""
    return getattr(node.target, "overloadpacket", node.target)


def _own(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _bind(model: nn.Module, program: torch.export.ExportedProgram) -> Traced:
    signature = program.graph_signature
    read = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    moving = set(signature.buffers_to_mutate.values())  # by the forward pass itself: not constant
    names = {
        node: read[node.name] for node in program.graph.nodes if node.name in read and read[node.name] not in moving
    }
    held = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}
    return Traced(model, list(program.graph.nodes), names, {node: held[name] for node, name in names.items()})


def _untraceable(model: nn.Module, args: tuple[Tensor, ...], error: Exception) -> str:
    given = ", ".join(str(tuple(arg.shape)) if isinstance(arg, Tensor) else type(arg).__name__ for arg in args)
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"{type(model).__name__} could not be traced on an example of shape {given}: {first}\n"
        "Wanted: a forward pass that takes the same steps for every image. Cure: give an example as the model is fed in "
        "training; a model whose steps depend on the values in its tensors has to go without couplings."
    )


@contextlib.contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    for module, _ in flags:
        module.training = False
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the exporter prints about its own inside; its exception says all a caller needs."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
