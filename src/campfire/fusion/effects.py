"""What calls do to the memory of others: a call may move only past calls that write to nothing anybody else reads."""

import operator
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from campfire.nn import SparseConv2d, SparseLinear

Modules = Mapping[str, nn.Module]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
MAKERS = (nn.Conv2d, nn.Linear, nn.ReLU, SparseConv2d, SparseLinear, *NORMS)  # what they return is new memory
_CHANGING = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "lshift", "rshift")
IN_PLACE = tuple(getattr(operator, f"i{name}") for name in _CHANGING)
_WRITING = (
    "__setitem__",
    *(f"__i{name}__" for name in _CHANGING),
)  # methods; of others the name ends in one underscore
ADD = (operator.add, torch.add, operator.iadd)
RELU = (torch.relu, torch.nn.functional.relu, torch.relu_, torch.nn.functional.relu_)
_KNOWN = ("torch", "_operator", "operator", "math", "builtins", "campfire")  # modules whose functions have no surprises


def is_plain(module: nn.Module) -> bool:
    """Whether calling it runs its class's own forward pass and nothing else: no hooks, no replaced method."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


def is_relu(node: fx.Node, modules: Modules) -> bool:
    """Whether it is a ReLU of one result, in place or not."""
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_module":
        module = modules[str(node.target)]
        return type(module) is nn.ReLU and is_plain(module)
    return node.target in RELU or (node.op == "call_method" and node.target in ("relu", "relu_"))


def is_sum(node: fx.Node) -> bool:
    """Whether it adds two results and nothing else, in place or not."""
    if not (len(node.args) == len(node.all_input_nodes) == 2) or node.kwargs:
        return False
    if node.op == "call_method":
        return node.target in ("add", "add_")
    return node.op == "call_function" and node.target in ADD


def writes(node: fx.Node, modules: Modules) -> bool:
    """Whether a call changes memory that it was handed, or may."""
    if node.op == "call_module":
        module = modules[str(node.target)]
        known = type(module).__module__.startswith(("torch.nn.", "campfire.nn."))
        return not known or not is_plain(module) or bool(getattr(module, "inplace", False))
    if node.op == "call_method":
        return node.target in _WRITING or (str(node.target).endswith("_") and not str(node.target).endswith("__"))
    if node.op != "call_function":
        return False
    name = getattr(node.target, "__name__", "")
    flagged = any(a is True for a in (*node.args, node.kwargs.get("inplace"))) or node.kwargs.get("out") is not None
    return not _is_known(node) or flagged or name.endswith("_") or node.target in (*IN_PLACE, operator.setitem)


def _is_known(node: fx.Node) -> bool:
    """Whether the function that it calls is torch's, Python's or campfire's, which write where their names say so."""
    function = getattr(node.target, "__module__", None) or ""
    return function.split(".")[0] in _KNOWN or isinstance(node.target, type(Tensor.add))


def written(node: fx.Node, modules: Modules) -> list[fx.Node]:
    """What a call changes the memory of, or may: the first of its arguments and ``out``, or any, if it is not known."""
    if not writes(node, modules):
        return []
    if node.op == "call_module" or (node.op == "call_function" and not _is_known(node)):
        return node.all_input_nodes
    found: list[fx.Node] = []
    map_arg((node.args[:1], node.kwargs.get("out"), node.kwargs.get("input")), found.append)
    return found


def shares(node: fx.Node, modules: Modules) -> bool:
    """Whether its result may lie in the memory of what it reads, as views do; torch's schemas say which those are."""
    if node.op == "call_module":
        return type(modules[str(node.target)]) not in MAKERS or writes(node, modules)
    if node.op not in ("call_method", "call_function"):
        return False
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    if writes(node, modules) or "dropout" in name:  # what is dropped from in eval mode is handed back
        return True
    if getattr(node.target, "__module__", "") == "_operator":
        return node.target is operator.getitem
    operators = getattr(torch.ops.aten, name, None)
    if operators is None:
        return True
    returned = [one for key in operators.overloads() for one in getattr(operators, key)._schema.returns]
    return any(one.alias_info is not None and not one.alias_info.is_write for one in returned)


def is_new(node: fx.Node, modules: Modules) -> bool:
    """Whether its result lies in memory that no other result shares."""
    if writes(node, modules):
        return is_harmless(node, modules)
    if node.op == "call_module":
        return type(modules[str(node.target)]) in MAKERS
    return is_sum(node) or is_relu(node, modules)


def is_harmless(node: fx.Node, modules: Modules) -> bool:
    """Whether a writing call writes to new memory that it alone reads: nobody can tell when it happens."""
    known = is_relu(node, modules) or is_sum(node)
    written = node.args[0] if node.args else None
    return known and isinstance(written, fx.Node) and len(written.users) == 1 and is_new(written, modules)


def why_not_move(first: fx.Node, last: fx.Node, modules: Modules) -> list[str]:
    """Reasons why the call ``first`` cannot wait until ``last``: what is written in between; [] when it can."""
    node, reasons = first.next, []
    while node is not last:
        if writes(node, modules) and not is_harmless(node, modules):
            reasons.append(f"{node} may write to memory it reads")
        node = node.next
    return reasons
