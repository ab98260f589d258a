"""Constants: which channels of a tensor are the same number at every image and pixel, followed through the calls.

The rules are exact for every input size: a rule that would hold only for the size of the example does not hold.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from operator import getitem
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from campfire.couplings.tracing import argument, operator_name, packet, shape

aten = torch.ops.aten
BATCH_NORM = aten._native_batch_norm_legit_no_training  # by running statistics
LAYERS = (aten.linear, aten.conv1d, aten.conv2d, aten.conv3d)


@dataclass(frozen=True)
class Constant:
    """What is known of a tensor T: ``T == value``, broadcast, wherever ``source >= 0``.

    Both have as many axes as T, all of size 1 except T's channel axis. ``source`` (int64) numbers the dead channel that
    the constant comes from; -1 means not constant.
    """

    value: Tensor
    source: Tensor

    def only(self, exact: Tensor) -> "Constant":
        """The same, known only where ``exact``."""
        return replace(self, source=self.source.where(exact, -1))

    @property
    def is_per_channel(self) -> bool:
        """Whether the channel axis is axis 1, as in [N, C, H, W] and [N, C]."""
        return self.value.dim() > 1 and self.value.shape[1] == self.value.numel()

    @property
    def is_one_number(self) -> bool:
        """Whether all of T is one constant of one channel."""
        same = self.value.unique().numel() == self.source.unique().numel() == 1
        return same and bool((self.source >= 0).all())

    def along_last(self, size: int) -> "Constant":
        """One number, seen along the last axis of T, of this size."""
        lengths = [*[1] * (self.value.dim() - 1), size]
        value, source = (part.flatten()[:1].expand(lengths) for part in (self.value, self.source))
        return Constant(value, source)

    def sources(self) -> set[int]:
        """The dead channels that are still seen here."""
        return set(self.source.unique().tolist()) - {-1}


State = dict[Node, Constant | Tensor]
"""What is known of every node so far: a parameter or buffer is a Tensor, anything of which nothing is known is absent."""


def propagate(node: Node, state: State) -> Constant | Tensor | None:
    """What one call knows of its result; a layer with weights is not asked here."""
    if all(isinstance(state.get(operand), Tensor) for operand in node.all_input_nodes):
        return _of_parameters(node, state)
    x = state.get(node.args[0]) if node.args and isinstance(node.args[0], Node) else None
    if _is_pointwise(node):
        result = _pointwise(node, state)
    elif packet(node) is aten.cat:
        result = _concatenate(node, state)
    elif packet(node) is BATCH_NORM:
        result = _normalise(node, state)
    else:
        result = _RULES[packet(node)](node, x) if packet(node) in _RULES and isinstance(x, Constant) else None
    return result if result is None or _describes(result, node.meta["val"]) else None


def along_channels(known: Constant | Tensor, node: Node) -> Constant | Tensor:
    """With one entry for each of T's channels: a single one tells no axis, and T may have many (a linear layer's one output)."""
    tensor = node.meta["val"]
    if not isinstance(known, Constant) or known.value.numel() > 1 or not isinstance(tensor, Tensor) or tensor.dim() < 2:
        return known
    size = [1, tensor.shape[1], *[1] * (tensor.dim() - 2)]
    return Constant(known.value.expand(size), known.source.expand(size))


def why_lost(node: Node) -> str:
    """Why a constant channel is not known to be constant behind this call."""
    name = operator_name(node)
    if node.op == "output":
        return "it is an output of the model"
    if packet(node) in LAYERS:
        return "its weight is computed in the forward pass, or it does not sum over these channels"
    if _is_pointwise(node):
        return f"{name} mixes it with another tensor, as a residual connection does"
    if packet(node) in _SURROUNDING and argument(node, "divisor_override") is None:
        return f"{name} mixes in its padding, so the border differs from the inside"
    return f"{name} is not known to keep a constant channel constant"


def _describes(constant: Constant, tensor: object) -> bool:
    return not isinstance(tensor, Tensor) or (
        (constant.value.dim(), constant.value.dtype) == (tensor.dim(), tensor.dtype)
        and constant.value.numel() == max(constant.value.shape)
    )


def _tags(node: Node) -> list[torch.Tag]:
    return getattr(node.target, "tags", [])


def _is_pointwise(node: Node) -> bool:
    tagged = torch.Tag.pointwise in _tags(node) and torch.Tag.nondeterministic_seeded not in _tags(node)
    return tagged or packet(node) in _POINTWISE_UNTAGGED


def _of_parameters(node: Node, state: State) -> Tensor | None:
    """A shaped or rescaled parameter, as frozen batch normalisations have them."""
    fixed = node.all_input_nodes and torch.Tag.nondeterministic_seeded not in _tags(node)
    result = _evaluate(node, state) if fixed else None
    return result if isinstance(result, Tensor) else None


def _pointwise(node: Node, state: State) -> Constant | None:
    """f(a, b, ...) element by element: evaluated on the constants themselves."""
    known = [k for k in map(state.get, node.all_input_nodes) if isinstance(k, Constant)]
    value = _evaluate(node, state) if known else None
    if not isinstance(value, Tensor):
        return None
    first, *others = (k.source.expand_as(value) for k in known)
    same = [first == other for other in others]
    return Constant(value, first).only(torch.stack(same).all(0)) if same else Constant(value, first)


def _normalise(node: Node, state: State) -> Constant | None:
    """Batch normalisation by running statistics is pointwise along the channels."""
    x, result = state.get(argument(node, "input")), _evaluate(node, state)
    if not isinstance(x, Constant) or not x.is_per_channel or result is None:
        return None
    return Constant(result[0], x.source)


def _evaluate(node: Node, state: State) -> Any:
    """The call's result on constants and parameters alone; None if it reads anything else."""
    operands = {operand: state.get(operand) for operand in node.all_input_nodes}
    if any(operand is None for operand in operands.values()):
        return None
    values = {node: known.value if isinstance(known, Constant) else known for node, known in operands.items()}
    call: Any = node.target
    arguments: Any = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
    return call(*arguments[0], **arguments[1])


def _concatenate(node: Node, state: State) -> Constant | None:
    if len(shape(node)) < 2 or argument(node, "dim") % len(shape(node)) != 1:
        return None
    parts = [_or_unknown(part, state) for part in argument(node, "tensors")]
    if not all(part.is_per_channel for part in parts):
        return None
    dtype = node.meta["val"].dtype
    return Constant(torch.cat([p.value.to(dtype) for p in parts], 1), torch.cat([p.source for p in parts], 1))


def _or_unknown(node: Node, state: State) -> Constant:
    known = state.get(node)
    if isinstance(known, Constant):
        return known
    size = [1, shape(node)[1], *[1] * (len(shape(node)) - 2)]
    value = torch.zeros(size, device=node.meta["val"].device)
    return Constant(value, torch.full_like(value, -1, dtype=torch.int64))


def _same(node: Node, x: Constant) -> Constant | None:
    """A window of equal numbers has that number as its maximum and as its mean; maxima pad with -inf."""
    return x if x.is_per_channel else None


def _first(node: Node, x: Constant) -> Constant | None:
    return x if node.args[1] == 0 else None


def _average(node: Node, x: Constant) -> Constant | None:
    if not x.is_per_channel or argument(node, "divisor_override") is not None:
        return None
    counts_zeros = argument(node, "count_include_pad") and is_padded(argument(node, "padding"))
    return x.only(x.value == 0) if counts_zeros else x


def _pad(node: Node, x: Constant) -> Constant | None:
    if not x.is_per_channel or len(argument(node, "pad")) > 2 * (x.value.dim() - 2):
        return None
    surrounds = (argument(node, "mode") or "constant") == "constant"
    return x.only(x.value == (argument(node, "value") or 0)) if surrounds else x


def _reduce(node: Node, x: Constant) -> Constant | None:
    """A mean or a maximum over pixels only."""
    axes = [axis % x.value.dim() for axis in argument(node, "dim") or (0,)]
    if not x.is_per_channel or min(axes) < 2:
        return None
    keep = bool(argument(node, "keepdim"))
    return Constant(x.value.amax(axes, keep), x.source.amax(axes, keep))


def _reshape(node: Node, x: Constant) -> Constant | None:
    """Flattening gives each channel its H * W features, one after another."""
    before, after = shape(argument(node, "self")), shape(node)
    if not x.is_per_channel or len(after) < 2 or after[0] != before[0]:
        return None
    if after[1] not in (before[1], prod(before[1:])):
        return None
    size = [1, -1, *[1] * (len(after) - 2)]
    value, source = (part.flatten().repeat_interleave(after[1] // before[1]) for part in (x.value, x.source))
    return Constant(value.view(size), source.view(size))


def is_padded(padding: int | str | list[int]) -> bool:
    """Whether a pooling or convolution call adds zeros around the image.

    >>> is_padded([0, 1]), is_padded("valid")
    (True, False)
    """
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, (list, tuple)) else padding > 0


_POINTWISE_UNTAGGED = {aten.hardswish, aten.prelu, aten.log_sigmoid, aten.alias, aten.detach, aten._to_copy, aten.where}
_SURROUNDING = {aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d, aten.pad}
_RULES: dict[object, Callable[[Node, Constant], Constant | None]] = {
    getitem: _first,
    aten.pad: _pad,
    **dict.fromkeys([aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d], _average),
    **dict.fromkeys([aten.max_pool1d, aten.max_pool2d, aten.max_pool3d], _same),
    **dict.fromkeys([aten.max_pool2d_with_indices, aten.max_pool3d_with_indices], _same),
    **dict.fromkeys([aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d], _same),
    **dict.fromkeys([aten.adaptive_max_pool1d, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d], _same),
    **dict.fromkeys([aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d], _same),
    **dict.fromkeys([aten.mean, aten.amax, aten.amin], _reduce),
    **dict.fromkeys([aten.view, aten.reshape, aten.flatten, aten.squeeze, aten.unsqueeze], _reshape),
}
