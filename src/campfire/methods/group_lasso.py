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

    The gradient is formed with the sum, in memory that is kept from step to step: fresh memory would cost more than the
    arithmetic. So the gradient of an earlier sum is gone once the next one is asked for, and each can be had once; autograd
    says so.

    Args:
        masks: by layer, bool [K, C, R, S] each.

    >>> weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    >>> corner = torch.tensor([0, 0, 0, 0, 1, 1, 0, 1, 1]).bool().view(1, 1, 3, 3)
    >>> round(float(GroupLasso({"conv": [corner]})({"conv": weight})), 6)  # sqrt(79)
    8.888194
    """

    def __init__(self, masks: Mapping[str, Sequence[Tensor]]):
        self._masks = masks
        self._layers: dict[str, _Layer] = {}
        self._scratch = torch.empty(0)

    def __call__(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The sum over all layers; weights as the model holds them."""
        largest = max(weights[name].numel() for name in self._masks)
        terms = []
        for name, masks in self._masks.items():
            weight = view4(weights[name])
            if name not in self._layers or not self._layers[name].fits(weight):
                self._layers[name] = _Layer(masks, weight)
            if self._scratch.device != weight.device or self._scratch.numel() < largest:
                self._scratch = torch.empty(largest, device=weight.device)
            terms.append(_Term.apply(weight, self._layers[name], self._scratch))
        return torch.stack(terms).sum()


class _Layer:
    """What a layer's masks leave out, as 1.0, and its gradient."""

    def __init__(self, masks: Sequence[Tensor], weight: Tensor):
        self.lay = weight.stride()
        # a weight may have gaps, as w[:, ::2]; what is like it has none, and other strides then
        self.slope = torch.empty_like(weight.detach(), dtype=torch.float32)
        self.kernels: list[Tensor] = []  # [K, C, 1, 1], of masks that take kernels as they are
        self.taps: list[Tensor] = []  # as the slope lies
        for mask in masks:
            mask = mask.to(weight.device)
            kernel = mask[:, :, :1, :1]
            if torch.equal(mask, kernel.expand_as(mask)):
                self.kernels.append((~kernel).float())
            else:
                self.taps.append(torch.empty_like(self.slope).copy_(~mask))

    def fits(self, weight: Tensor) -> bool:
        """Whether the weight still lies as it did."""
        return self.slope.device == weight.device and self.lay == weight.stride()

    def press(self, weight: Tensor, scratch: Tensor) -> Tensor:
        """The sum; its gradient w (outside / norm), summed over the masks, is in ``slope``."""
        weight = weight.detach().float()
        squares = scratch.as_strided(weight.shape, self.slope.stride())
        torch.mul(weight, weight, out=squares)
        sums = _kernels(squares) if self.kernels else squares
        alone = len(self.kernels) == 1 and (not self.taps or sums is not squares)  # the sums are needed once
        total, base = weight.new_zeros(()), weight.new_zeros(())
        for outside in self.kernels:
            norm = (sums.mul_(outside) if alone else sums * outside).add_(EPS).sqrt_()
            total = total + norm.sum()
            base = norm.reciprocal_().mul_(outside) if alone else base + outside / norm
        for outside in self.taps:
            norm = _kernels(squares.mul_(outside) if len(self.taps) == 1 else squares * outside).add_(EPS).sqrt_()
            total = total + norm.sum()
            base = torch.addcmul(base, outside, norm.reciprocal_(), out=self.slope)
        torch.mul(base, weight, out=self.slope)
        return total


class _Term(Function):
    """One layer's sum."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, layer: _Layer, scratch: Tensor) -> Tensor:
        total = layer.press(weight, scratch)
        ctx.save_for_backward(layer.slope)
        ctx.dtype = weight.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (slope,) = ctx.saved_tensors  # somebody else holds it too, so autograd adds to a copy
        return slope.mul_(grads[0]).to(ctx.dtype), None, None


def _kernels(x: Tensor) -> Tensor:
    """The sum over each kernel, [K, C, 1, 1]; 1x1 kernels are their own."""
    return x if x.shape[2:] == (1, 1) else x.sum((2, 3), keepdim=True)
