"""Convolutions by generated code of tensors in the format chwn; where it cannot be compiled, by `lanes.passes`."""

import ctypes
import functools

from torch import Tensor

from campfire.kernels.codegen.flat_source import FlatTiles
from campfire.kernels.codegen.index import Filters, PatternIndex
from campfire.kernels.codegen.source import Tiles
from campfire.kernels.formats import empty
from campfire.kernels.lanes import passes as lanes_passes
from campfire.kernels.lanes.index import Index
from campfire.native import generated

Code = ctypes.CDLL


def forward(
    x: Tensor,
    index: Index,
    value: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """y [N, K, outH, outW] of x [N, C, H, W]; then plus bias [K] and residual, then ReLU."""
    assert isinstance(index, PatternIndex)
    if (code := code_of(index.ahead, index)) is None:
        return lanes_passes.forward(x, index.scattered, value, bias, residual, relu)
    g = index.geometry
    y = empty((g.images, g.outputs, *g.out_size), x, "chwn")
    return run(code, index.ahead, x, value, bias, residual, relu, y)


def d_input(d_y: Tensor, index: Index, value: Tensor) -> Tensor:
    """d_x [N, C, H, W] of d_y [N, K, outH, outW]."""
    assert isinstance(index, PatternIndex)
    if (code := code_of(index.back, index)) is None:
        return lanes_passes.d_input(d_y, index.scattered, value)
    g = index.geometry
    d_x = empty((g.images, g.inputs, g.height, g.width), d_y, "chwn")
    return run(code, index.back, d_y, value, None, None, False, d_x)


def d_values(x: Tensor, d_y: Tensor, index: Index) -> Tensor:
    """The gradient of the survivors [n]."""
    assert isinstance(index, PatternIndex)
    return lanes_passes.d_values(x, d_y, index.scattered)


def code_of(filters: Filters, index: PatternIndex) -> Code | None:
    """The compiled code of one direction; None, told by a warning, where it cannot be had."""
    return _compiled(filters.tiles, f"a patterned {_named(index)} layer")


def _named(index: PatternIndex) -> str:
    g = index.geometry
    return f"{g.inputs}->{g.outputs} {g.taps_high}x{g.taps_wide}/{g.stride} @{g.height}x{g.width}"


def _compiled(tiles: Tiles | FlatTiles, what: str) -> Code | None:
    return generated.library("patterns", _text(tiles), what)


@functools.cache
def _text(tiles: Tiles | FlatTiles) -> str:
    return tiles.source()


def run(
    code: Code,
    f: Filters,
    x: Tensor,
    value: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    y: Tensor,
) -> Tensor:
    """Write one pass of the values [n] into y, which it returns; all tensors in the format chwn."""
    arguments = (x, f.start, f.at, f.entry, f.count, f.which)
    code.campfire_patterns_run(
        ctypes.byref(f.walk),
        *map(_at, arguments),
        ctypes.c_int64(value.numel()),
        *map(_at, (value, bias, residual)),
        ctypes.c_int32(relu),
        _at(y),
    )
    return y


def _at(x: Tensor | None) -> ctypes.c_void_p | None:
    return None if x is None else ctypes.c_void_p(x.data_ptr())
