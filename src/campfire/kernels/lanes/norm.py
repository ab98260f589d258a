"""Batch normalisation of tensors in the format chwn, forward and back: the operators behind `campfire.nn.BatchNorm2d`."""

import ctypes
import math

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from campfire.kernels.formats import empty, to_format
from campfire.kernels.lanes.native import call

_library = torch.library.Library("campfire", "FRAGMENT")
_library.define("norm(Tensor x, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)")
_library.define(
    "norm_back(Tensor dy, Tensor x, Tensor? weight, float eps, Tensor mean, Tensor variance) -> (Tensor, Tensor, Tensor)"
)
_library.define("affine(Tensor x, Tensor scale, Tensor shift) -> Tensor")


def _norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    x = to_format(x, "chwn")
    y, mean, variance = _norm_fake(x, weight, bias, eps)
    call("lanes_layers", "norm", x, *_sizes(x), weight, bias, ctypes.c_float(eps), y, mean, variance)
    return y, mean, variance


def _norm_back(
    dy: Tensor, x: Tensor, weight: Tensor | None, eps: float, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dy, x = to_format(dy, "chwn"), to_format(x, "chwn")
    found = _norm_back_fake(dy, x, weight, eps, mean, variance)
    call("lanes_layers", "norm_back", dy, x, *_sizes(x), weight, ctypes.c_float(eps), mean, variance, *found)
    return found


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    x = to_format(x, "chwn")
    y = _affine_fake(x, scale, shift)
    call("lanes_layers", "affine", x, *_sizes(x), scale.contiguous(), shift.contiguous(), y)
    return y


def _norm_fake(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    return empty(x.shape, x, "chwn"), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


def _norm_back_fake(
    dy: Tensor, x: Tensor, weight: Tensor | None, eps: float, mean: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return empty(x.shape, x, "chwn"), torch.empty_like(mean), torch.empty_like(mean)


def _affine_fake(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return empty(x.shape, x, "chwn")


for _name, _run, _fake in (
    ("norm", _norm, _norm_fake),
    ("norm_back", _norm_back, _norm_back_fake),
    ("affine", _affine, _affine_fake),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"campfire::{_name}", _fake)


def _sizes(x: Tensor) -> tuple[ctypes.c_int32, ctypes.c_int64]:
    return ctypes.c_int32(x.shape[1]), ctypes.c_int64(math.prod(x.shape) // x.shape[1])


class _Norm(Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float):  # pyright: ignore
        y, mean, variance = torch.ops.campfire.norm(x, weight, bias, eps)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor, *_: Tensor):  # pyright: ignore
        x, weight, mean, variance = ctx.saved_tensors
        dx, d_weight, d_bias = torch.ops.campfire.norm_back(dy, x, weight, ctx.eps, mean, variance)
        wants = ctx.needs_input_grad
        return dx if wants[0] else None, d_weight if wants[1] else None, d_bias if wants[2] else None, None


def norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation of x [N, C, H, W], float32, by its own moments; they are returned too, [C], not differentiable.

    The variance is divided by its count. Differentiable once in x, weight and bias [C]. Needs `campfire.kernels.lanes.native.available`.
    """
    return _Norm.apply(x, weight, bias, eps)  # pyright: ignore[reportReturnType]


def affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """x [N, C, H, W] times scale [C] plus shift [C]: normalisation by known moments. Differentiable, then in torch."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, scale, shift)):
        return x * scale[:, None, None] + shift[:, None, None]
    return torch.ops.campfire.affine(x, scale, shift)
