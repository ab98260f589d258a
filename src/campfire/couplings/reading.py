"""Reading: what one convolution or linear layer sees, kernel by kernel, and what it makes of constants."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.fx import Node

from campfire.couplings.constants import Constant, aten, is_padded
from campfire.couplings.tracing import argument, packet, shape


@dataclass(frozen=True)
class Reading:
    """A layer's kernels and their inputs; ``kernels`` and ``living`` are [K, C/groups, R * S], the rest [K, C/groups]."""

    kernels: Tensor
    living: Tensor  # bool
    value: Tensor
    source: Tensor  # the dead channel this kernel reads, -1: not constant
    exact: Tensor  # bool: constant, and what the kernel makes of it is the same at every pixel

    @cached_property
    def alive(self) -> Tensor:
        """Whether any weight of the kernel lives."""
        return self.living.any(2)

    def total(self, which: Tensor) -> Tensor:
        """What the kernels ``which`` add to each output, in float64: [K]."""
        columns = which.any(0).nonzero().flatten()
        taps = self.kernels[:, columns].double().sum(2)
        return (taps * self.value[:, columns].double() * which[:, columns]).sum(1)

    def last_inputs(self, fold: Tensor) -> Tensor:
        """The strongest input of every output that would lose all its inputs to ``fold``."""
        lost = (fold.any(1) & ~(self.alive & ~fold).any(1)).nonzero().flatten()
        strength = self.kernels[lost].abs().sum(2).masked_fill(~fold[lost], -1)
        last = torch.zeros_like(fold)
        last[lost, strength.argmax(1)] = True
        return last

    def freed(self, fold: Tensor, sources: int) -> list[int]:
        """How many living weights ``fold`` takes, for each dead channel."""
        return torch.bincount(self.source[fold].cpu(), self.living[fold].sum(1).cpu(), sources).long().tolist()


def read(node: Node, weight: Tensor, living: Tensor, x: Constant | None) -> Reading:
    """The reading of one call, whose input is ``x``, or of which nothing is known."""
    outputs, inputs = weight.shape[:2]
    groups = argument(node, "groups") or 1
    value = x.value if x else weight.new_zeros(groups * inputs)
    source = x.source if x else torch.full_like(value, -1, dtype=torch.int64)
    value, source = (_per_kernel(part, groups, outputs) for part in (value, source))
    exact = (source >= 0) & ((value == 0) | (not is_padded(argument(node, "padding") or 0)))
    return Reading(weight.reshape(outputs, inputs, -1), living.reshape(outputs, inputs, -1), value, source, exact)


def summed(node: Node, x: Constant) -> Constant | None:
    """``x`` along the channels that this layer sums over (a linear layer: the last axis); None where it knows of others."""
    weight = argument(node, "weight").meta["val"]
    if packet(node) is aten.linear:
        x = x.along_last(weight.shape[1]) if x.is_one_number else x
        fits = x.value.shape[-1] == x.value.numel()
    else:
        fits = x.is_per_channel and x.value.dim() == weight.dim()
    return x if fits and x.value.numel() == weight.shape[1] * (argument(node, "groups") or 1) else None


def result(node: Node, value: Tensor, source: Tensor) -> Constant | None:
    """Per-output constants, [K] each, laid out along the channel axis of the layer's output."""
    size = [1] * len(shape(node))
    if packet(node) is not aten.linear and len(size) != argument(node, "weight").meta["val"].dim():
        return None  # a single image without its batch axis
    size[1 if packet(node) is not aten.linear else -1] = -1
    return Constant(value.view(size), source.view(size))


def _per_kernel(channels: Tensor, groups: int, outputs: int) -> Tensor:
    """[C] -> [K, C/groups]: output k of group g reads the g-th share of the input channels."""
    shares = channels.reshape(groups, 1, -1)
    return shares.expand(-1, outputs // groups, -1).reshape(outputs, -1)
