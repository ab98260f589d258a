"""The lasso on what masks leave out of each kernel: one pass forward that brings the gradient along."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from campfire.mask import view4

EPS = 1e-8  # under each root, as in the paper's code: its slope at zero is zero


class GroupLasso:
    """``sum of sqrt(||W outside the mask||^2 + 1e-8)`` over the kernels of all layers and the masks of each layer.

    Args:
        masks: by layer, bool [K, C, R, S] each.

    >>> weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    >>> corner = torch.tensor([0, 0, 0, 0, 1, 1, 0, 1, 1]).bool().view(1, 1, 3, 3)
    >>> round(float(GroupLasso({"conv": [corner]})({"conv": weight})), 6)  # sqrt(79)
    8.888194
    """

    def __init__(self, masks: Mapping[str, Sequence[Tensor]]):
        self._masks = masks
        self._outside: dict[str, list[Tensor]] = {}

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The sum over all layers; weights as the model holds them."""
        terms = []
        for name, masks in self._masks.items():
            weight = view4(weights[name])
            kept = self._outside.get(name)
            if kept is None or kept[0].device != weight.device:
                self._outside[name] = kept = [_outside(mask, weight) for mask in masks]
            terms.append(_Term.apply(weight, *kept))
        return torch.stack(terms).sum()


def _outside(mask: Tensor, weight: Tensor) -> Tensor:
    """1.0 where a mask leaves out, as the weight lies, or [K, C, 1, 1] where it takes kernels as they are."""
    mask = mask.to(weight.device)
    kernel = mask[:, :, :1, :1]
    if torch.equal(mask, kernel.expand_as(mask)):
        return (~kernel).to(torch.float32)
    return torch.empty_like(weight, dtype=torch.float32).copy_(~mask)


class _Term(Function):
    """One layer's sum; the slope of every weight is w (outside / norm), summed over the masks."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, *outside: Tensor) -> Tensor:
        squares = weight.float().square()
        eps, total, saved = squares.new_full((), EPS), squares.new_zeros(()), []
        for mask in sorted(outside, key=Tensor.numel):  # the largest one last: it may write over the squares
            if mask.shape[2:] == (1, 1):
                norm = torch.addcmul(eps, mask, _kernels(squares)).sqrt_()
            else:
                norm = _kernels(squares.mul_(mask)).add_(EPS).sqrt_()
            total = total + norm.sum()
            saved += [mask, norm.reciprocal_()]
        ctx.save_for_backward(weight, *saved)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, *saved = ctx.saved_tensors
        slope = grads[0].float() * 0
        for mask, inverse in zip(saved[::2], saved[1::2], strict=True):
            slope = torch.addcmul(slope, mask, inverse * grads[0])
        return (slope * weight).to(weight.dtype), *(None for _ in saved[::2])


def _kernels(x: Tensor) -> Tensor:
    """The sum over each kernel, [K, C, 1, 1]."""
    return x.sum((2, 3), keepdim=True) if x.shape[2:] != (1, 1) else x
