"""Convolutions with any mask in the batch-lane layout [images / 16, channels, height, width, 16]: one image a lane."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from campfire import native
from campfire.kernels.lanes_index import Index, Side

LANES = 16


def forward(
    x: Tensor,
    index: Index,
    value: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """y [B, K, outH, outW, 16] of x [B, C, H, W, 16]; then plus bias [K] and residual, then ReLU.

    Lanes beyond the images are zero in y wherever they are zero in the residual.
    """
    geometry = index.geometry
    y = _empty(geometry.images, geometry.outputs, geometry.out_size)
    _call("forward", index.forward, x, *_list(index.forward), value, bias, residual, ctypes.c_int32(relu), y)
    return y


def d_input(d_y: Tensor, index: Index, value: Tensor) -> Tensor:
    """d_x [B, C, H, W, 16] of d_y [B, K, outH, outW, 16]."""
    geometry = index.geometry
    d_x = _empty(geometry.images, geometry.inputs, (geometry.height, geometry.width))
    count = ctypes.c_int64(index.backward.offset.numel() - 3)
    _call("d_input", index.backward, d_y, *_list(index.backward), index.backward.which, value, count, d_x)
    return d_x


def d_values(x: Tensor, d_y: Tensor, index: Index) -> Tensor:
    """The gradient of the survivors [n]; lanes beyond the images must be zero in d_y."""
    d_value = torch.empty(index.values)
    _call("d_values", index.forward, x, d_y, *_list(index.forward), d_value)
    return d_value


def _list(side: Side) -> tuple[Tensor, Tensor, Tensor]:
    return side.start, side.at, side.offset


def _empty(images: int, channels: int, size: tuple[int, int]) -> Tensor:
    return torch.empty(-(-images // LANES), channels, *size, LANES)


def _call(name: str, side: Side, *arguments: Any) -> None:
    pointers = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
    library = native.library("lanes")
    assert library is not None
    failed = getattr(library, f"campfire_lanes_{name}")(ctypes.byref(side.walk), *pointers)
    assert not failed, "no such register tile"
