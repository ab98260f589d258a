"""How a layer's images become lanes: as they lie, by the pixels that are read at all, or few images cut into parts.

Every way hands what it made to the passes of its index: `lanes.passes`, or those of generated code.
"""

import ctypes
from abc import ABC, abstractmethod
from dataclasses import replace
from types import ModuleType

from torch import Tensor

from campfire.kernels.formats import empty
from campfire.kernels.lanes import passes as lanes_passes
from campfire.kernels.lanes.index import Index
from campfire.kernels.lanes.native import call
from campfire.kernels.lanes.plan import LANES

GRIDS = {16: (4, 4), 8: (2, 4), 4: (2, 2), 2: (1, 2)}  # parts of an image: rows by columns


class Way(ABC):
    """The three passes of one layer for one size of input; tensors are in the format chwn, values as the index lists them."""

    @abstractmethod
    def forward(self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        """[N, C, H, W] -> [N, K, H', W']."""

    @abstractmethod
    def d_input(self, dy: Tensor, value: Tensor) -> Tensor:
        """[N, K, H', W'] -> [N, C, H, W]."""

    @abstractmethod
    def d_values(self, x: Tensor, dy: Tensor) -> Tensor:
        """The gradient of the values [n]."""


def way_of(index: Index, passes: ModuleType = lanes_passes) -> Way:
    """The way for a layer; ``passes`` is a module like `lanes.passes`."""
    geometry = index.geometry
    if geometry.images * 2 > LANES or geometry.flat is not geometry:
        return AsTheyLie(index, passes)
    if (geometry.taps_high, geometry.taps_wide, geometry.padding) == (1, 1, 0):
        return Sampled(index, passes)
    return InParts(index, passes)


class AsTheyLie(Way):
    """16 images side by side, or 16 pixels of a 1x1 layer."""

    def __init__(self, index: Index, passes: ModuleType):
        self.index, self.index_back, self.passes = index, index, passes

    def forward(self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        return self.passes.forward(x, self.index, value, bias, residual, relu)

    def d_input(self, dy: Tensor, value: Tensor) -> Tensor:
        return self.passes.d_input(dy, self.index, value)

    def d_values(self, x: Tensor, dy: Tensor) -> Tensor:
        return self.passes.d_values(x, dy, self.index)


class Sampled(Way):
    """A 1x1 layer with a stride reads some pixels only: it is one without, on a copy of these."""

    def __init__(self, index: Index, passes: ModuleType):
        g = index.geometry
        self.geometry, size = g, g.out_size
        flat = replace(g, height=size[0], width=size[1], stride=1)
        self.inner = AsTheyLie(replace(index, geometry=flat), passes)

    def forward(self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        return self.inner.forward(self._read(x), value, bias, residual, relu)

    def d_input(self, dy: Tensor, value: Tensor) -> Tensor:
        g = self.geometry
        dx = empty((g.images, g.inputs, g.height, g.width), dy, "chwn").zero_()
        dx[:, :, :: g.stride, :: g.stride] = self.inner.d_input(dy, value)
        return dx

    def d_values(self, x: Tensor, dy: Tensor) -> Tensor:
        return self.inner.d_values(self._read(x), dy)

    def _read(self, x: Tensor) -> Tensor:
        stride = self.geometry.stride
        return x.permute(1, 2, 3, 0)[:, ::stride, ::stride].contiguous().permute(3, 0, 1, 2)


class Parts(ctypes.Structure):
    """``struct Parts`` of lanes_parts.h, field by field."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("images", "channels", "height", "width", "grid_high", "grid_wide"),
            *("high", "wide", "down", "right", "top", "left"),
        )
    ]

    def cut(self, x: Tensor) -> Tensor:
        """Parts of x [N, C, H, W] as the 16 images of a tensor, zero beyond x."""
        lanes = empty((LANES, self.channels, self.high, self.wide), x, "chwn")
        call("lanes_layers", "cut", ctypes.byref(self), x, lanes)
        return lanes

    def join(self, lanes: Tensor, residual: Tensor | None = None, relu: bool = False) -> Tensor:
        """[N, C, H, W] of its parts; then plus a residual, then ReLU."""
        y = empty((self.images, self.channels, self.height, self.width), lanes, "chwn")
        call("lanes_layers", "join", ctypes.byref(self), lanes, residual, int(relu), y)
        return y


class InParts(Way):
    """Few images, each cut into parts that together are up to 16 lanes; inputs overlap by what the taps reach."""

    def __init__(self, index: Index, passes: ModuleType):
        g, self.passes = index.geometry, passes
        self.grid = GRIDS[2 ** ((LANES // g.images).bit_length() - 1)]
        high, wide = (-(-size // parts) for size, parts in zip(g.out_size, self.grid, strict=True))
        rows, columns = (high - 1) * g.stride + g.taps_high, (wide - 1) * g.stride + g.taps_wide
        part = replace(g, images=LANES, height=rows, width=columns, padding=0)
        self.index = replace(index, geometry=part)
        step, corner = (high * g.stride, wide * g.stride), (-g.padding, -g.padding)
        self.x = Parts(g.images, g.inputs, g.height, g.width, *self.grid, rows, columns, *step, *corner)
        self.y = Parts(g.images, g.outputs, *g.out_size, *self.grid, high, wide, high, wide, 0, 0)
        self._prepare_back(index)

    def _prepare_back(self, index: Index) -> None:
        """Parts of dx begin at multiples of the stride, so that in all of them the same taps reach the same pixels."""
        g = index.geometry
        high, wide = (
            -(-size // (parts * g.stride)) * g.stride
            for size, parts in zip((g.height, g.width), self.grid, strict=True)
        )
        first = -((max(g.taps_high, g.taps_wide) - 1 - g.padding) // g.stride)  # output that reaches the first row of x
        out = tuple((size - 1 + g.padding) // g.stride - first + 1 for size in (high, wide))
        part = replace(g, images=LANES, height=high, width=wide, padding=g.padding - first * g.stride, out=out)
        self.index_back = replace(index, geometry=part)
        self.dx = Parts(g.images, g.inputs, g.height, g.width, *self.grid, high, wide, high, wide, 0, 0)
        step = high // g.stride, wide // g.stride
        self.dy = Parts(g.images, g.outputs, *g.out_size, *self.grid, *out, *step, first, first)

    def forward(self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool) -> Tensor:
        return self.y.join(self.passes.forward(self.x.cut(x), self.index, value, bias), residual, relu)

    def d_input(self, dy: Tensor, value: Tensor) -> Tensor:
        return self.dx.join(self.passes.d_input(self.dy.cut(dy), self.index_back, value))

    def d_values(self, x: Tensor, dy: Tensor) -> Tensor:
        return self.passes.d_values(self.x.cut(x), self.y.cut(dy), self.index)
