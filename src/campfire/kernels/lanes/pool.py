"""Maxima under windows of tensors in the format chwn, forward and back: the operators behind `campfire.nn.MaxPool2d`."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from campfire.kernels.formats import empty, to_format
from campfire.kernels.lanes.native import call

MOST = 15  # taps of a window along one axis: 225 of them have names of 8 bits

_library = torch.library.Library("campfire", "FRAGMENT")
_library.define("max_pool(Tensor x, int size, int stride, int padding) -> (Tensor, Tensor)")
_library.define("max_pool_back(Tensor dy, Tensor taps, SymInt[] shape, int size, int stride, int padding) -> Tensor")


class _Window(ctypes.Structure):
    """``struct Window`` of lanes_pool.h."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("images", "channels", "height", "width", "out_height", "out_width"),
            *("size", "stride", "padding"),
        )
    ]


def _out(x: Sequence[int], size: int, stride: int, padding: int) -> tuple[int, ...]:
    return (*x[:2], *((n + 2 * padding - size) // stride + 1 for n in x[2:]))


def _window(shape: Sequence[int], size: int, stride: int, padding: int) -> _Window:
    return _Window(*shape, *_out(shape, size, stride, padding)[2:], size, stride, padding)


def _max_pool(x: Tensor, size: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    x = to_format(x, "chwn")
    y, taps = _max_pool_fake(x, size, stride, padding)
    call("lanes_layers", "max_pool", ctypes.byref(_window(x.shape, size, stride, padding)), x, y, taps)
    return y, taps


def _max_pool_back(dy: Tensor, taps: Tensor, shape: Sequence[int], size: int, stride: int, padding: int) -> Tensor:
    dy, dx = to_format(dy, "chwn"), empty(shape, dy, "chwn")
    call("lanes_layers", "max_pool_back", ctypes.byref(_window(shape, size, stride, padding)), dy, taps, dx)
    return dx


def _max_pool_fake(x: Tensor, size: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    y = empty(_out(x.shape, size, stride, padding), x, "chwn")
    return y, torch.empty_like(y, dtype=torch.uint8)


def _max_pool_back_fake(dy: Tensor, taps: Tensor, shape: Sequence[int], size: int, stride: int, padding: int) -> Tensor:
    return empty(shape, dy, "chwn")


for _name, _run, _fake in (
    ("max_pool", _max_pool, _max_pool_fake),
    ("max_pool_back", _max_pool_back, _max_pool_back_fake),
):
    _library.impl(_name, _run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"campfire::{_name}", _fake)


class _MaxPool(Function):
    @staticmethod
    def forward(ctx, x: Tensor, size: int, stride: int, padding: int) -> Tensor:  # pyright: ignore
        y, taps = torch.ops.campfire.max_pool(x, size, stride, padding)
        ctx.save_for_backward(taps)
        ctx.shape, ctx.window = x.shape, (size, stride, padding)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # pyright: ignore
        (taps,) = ctx.saved_tensors
        return torch.ops.campfire.max_pool_back(dy, taps, list(ctx.shape), *ctx.window), None, None, None


def max_pool(x: Tensor, size: int, stride: int, padding: int) -> Tensor:
    """The greatest of every window of size x size <= 15 x 15 pixels of x [N, C, H, W], float32; differentiable once.

    A NaN is the greatest; of equals, the first has the gradient, as in the library. Needs `campfire.kernels.lanes.native.available`.
    """
    return _MaxPool.apply(x, size, stride, padding)  # pyright: ignore[reportReturnType]
