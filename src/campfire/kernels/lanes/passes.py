"""Convolutions with any mask of tensors in the format chwn: one image a lane."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from campfire.kernels.formats import empty
from campfire.kernels.lanes.index import Index, Side
from campfire.kernels.lanes.native import call


def forward(
    x: Tensor,
    index: Index,
    value: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """y [N, K, outH, outW] of x [N, C, H, W]; then plus bias [K] and residual, then ReLU."""
    geometry = index.geometry
    y = empty((geometry.images, geometry.outputs, *geometry.out_size), x, "chwn")
    _call("forward", index.forward, x, *_list(index.forward), value, bias, residual, int(relu), y)
    return y


def d_input(d_y: Tensor, index: Index, value: Tensor) -> Tensor:
    """d_x [N, C, H, W] of d_y [N, K, outH, outW]."""
    geometry = index.geometry
    d_x = empty((geometry.images, geometry.inputs, geometry.height, geometry.width), d_y, "chwn")
    count = ctypes.c_int64(index.backward.offset.numel() - 3)
    _call("d_input", index.backward, d_y, *_list(index.backward), index.backward.which, value, count, d_x)
    return d_x


def d_values(x: Tensor, d_y: Tensor, index: Index) -> Tensor:
    """The gradient of the survivors [n]."""
    d_value = torch.empty(index.values)
    _call("d_values", index.forward, x, d_y, *_list(index.forward), d_value)
    return d_value


def width() -> int:
    """Lanes of a register of the flavour that is loaded."""
    return call("lanes", "width")


def _list(side: Side) -> tuple[Tensor, Tensor, Tensor]:
    return side.start, side.at, side.offset


def _call(name: str, side: Side, *arguments: Any) -> None:
    failed = call("lanes", name, ctypes.byref(side.walk), *arguments)
    assert not failed, "no such register tile"
