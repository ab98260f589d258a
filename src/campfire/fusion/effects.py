"""What calls do to the memory of others: a call may move only past calls that write to nothing anybody else reads."""

import operator
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn

from campfire.fusion.tracing import IN_PLACE
from campfire.nn import SparseConv2d, SparseLinear

Modules = Mapping[str, nn.Module]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
MAKERS = (nn.Conv2d, nn.Linear, nn.ReLU, SparseConv2d, SparseLinear, *NORMS)  # what they return is new memory
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
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op != "call_function":
        return False
    function = getattr(node.target, "__module__", None) or ""
    name = getattr(node.target, "__name__", "")
    flagged = any(a is True for a in (*node.args, node.kwargs.get("inplace"))) or node.kwargs.get("out") is not None
    own = function.split(".")[0] in _KNOWN or isinstance(node.target, type(Tensor.add))
    return not own or flagged or name.endswith("_") or node.target in (*IN_PLACE, operator.setitem)


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
