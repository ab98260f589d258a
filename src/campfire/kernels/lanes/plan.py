"""Register tiles and strips of the batch-lane kernels: which tile suits a layer, and how a pass walks over it."""

import ctypes
from dataclasses import dataclass
from functools import cache

LANES = 16  # images, or pixels of a 1x1 layer, that one vector holds
COLUMNS = (3, 4, 5, 6, 7, 8, 10, 12, 14)  # tiles that are compiled have so many columns (lanes_choice.h)
ROWS = 8
TAP_LINES = 700  # vectors of a strip: what stays in a first-level cache of 48 KB beside the sums that pass by
KERNEL_LINES = 1100  # whole kernels read a vector once for nine products, and may read some from the second level


@dataclass(frozen=True)
class Geometry:
    """Sizes of one convolution: [images, inputs, height, width] by [outputs, inputs, R, S], one stride and padding.

    >>> Geometry(16, 64, 56, 56, 128, 3, 3, stride=2, padding=1).out_size
    (28, 28)
    """

    images: int
    inputs: int
    height: int
    width: int
    outputs: int
    taps_high: int
    taps_wide: int
    stride: int = 1
    padding: int = 0
    last: int = LANES  # images of the last pixel
    out: tuple[int, int] | None = None  # rows and columns of the output, where they are not what the sizes say

    @property
    def out_size(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        if self.out is not None:
            return self.out
        sizes = ((self.height, self.taps_high), (self.width, self.taps_wide))
        high, wide = ((size + 2 * self.padding - taps) // self.stride + 1 for size, taps in sizes)
        return high, wide

    @property
    def flat(self) -> "Geometry":
        """The same convolution with all images' pixels in one row, 16 abreast, where taps see no neighbours.

        >>> flat = Geometry(3, 8, 7, 7, 4, 1, 1).flat
        >>> flat.images, flat.width, flat.last
        (16, 10, 3)
        """
        if (self.taps_high, self.taps_wide, self.stride, self.padding) != (1, 1, 1, 0):
            return self
        floats = self.images * self.height * self.width
        width, last = -(-floats // LANES), (floats - 1) % LANES + 1
        return Geometry(LANES, self.inputs, 1, width, self.outputs, 1, 1, last=last)


class Pass(ctypes.Structure):
    """``struct Pass`` of lanes_strip.h, field by field."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("images", "in_channels", "in_height", "in_width", "out_channels", "out_height", "out_width"),
            *("taps_high", "taps_wide", "step", "top", "left", "spread", "rows", "cols", "block", "whole", "last"),
        )
    ]

    @property
    def pitch(self) -> int:
        """Lines of a row of a strip."""
        return self.cols + (self.taps_wide - 1) // self.step

    def phase_rows(self, phase: int) -> int:
        """Rows of a strip in one phase of the stride."""
        return self.rows + (self.taps_high - 1 - phase) // self.step

    @property
    def lines(self) -> int:
        """Lines of a strip, a channel."""
        rows = sum(self.phase_rows(phase) for phase in range(min(self.taps_high, self.step)))
        return rows * min(self.taps_wide, self.step) * self.pitch

    @property
    def blocks(self) -> int:
        """Strips that the input channels are cut into."""
        return -(-self.in_channels // self.block)

    def line(self, r: int, s: int) -> int:
        """Where a strip holds what the tile's first output reads under tap (r, s)."""
        down, right = r % self.step, s % self.step
        above = sum(self.phase_rows(phase) for phase in range(down)) * min(self.taps_wide, self.step)
        row = above + right * self.phase_rows(down) + r // self.step
        return row * self.pitch + s // self.step


def reads(geometry: Geometry, whole: bool) -> Pass:
    """How the outputs read the input: the pass of forward and d_values, its tile not chosen yet."""
    high, wide = geometry.out_size
    return Pass(
        *(geometry.images, geometry.inputs, geometry.height, geometry.width, geometry.outputs, high, wide),
        *(geometry.taps_high, geometry.taps_wide, geometry.stride, -geometry.padding, -geometry.padding),
        *(1, 0, 0, 0, whole, geometry.last),
    )


def reads_back(geometry: Geometry, whole: bool) -> Pass:
    """How the inputs read the output's gradient; a stride makes classes of inputs, each under taps of its own."""
    high, wide = geometry.out_size
    down, right = (distances(taps, geometry) for taps in (geometry.taps_high, geometry.taps_wide))
    return Pass(
        *(geometry.images, geometry.outputs, high, wide, geometry.inputs, geometry.height, geometry.width),
        *(max(down) - min(down) + 1, max(right) - min(right) + 1, 1, min(down), min(right)),
        *(geometry.stride, 0, 0, 0, whole, geometry.last),
    )


def most_lines(high: int, wide: int, stride: int) -> int:
    """No strip of one channel of any tile has more lines, forward or back."""
    return (ROWS * stride + high) * (max(COLUMNS) * stride + wide)


def distances(taps: int, geometry: Geometry) -> list[int]:
    """From input i of its class to the output that reads it under each tap: that output's row minus i."""
    return [
        ((tap - geometry.padding) % geometry.stride + geometry.padding - tap) // geometry.stride for tap in range(taps)
    ]


def with_tile(walk: Pass, survivors: float, limit: int) -> Pass:
    """The pass with the cheapest tile of at most ``limit`` sums; ``survivors`` per output channel and input channel."""
    fields = tuple(getattr(walk, name) for name, *_ in Pass._fields_)
    rows, cols = _tile(fields, max(0.01, round(survivors, 2)), 21 if walk.whole else limit)
    chosen = _tiled(fields, rows, cols)
    chosen.block = -(-walk.in_channels // _blocks(chosen))
    return chosen


def _tiled(fields: tuple[int, ...], rows: int, cols: int) -> Pass:
    walk = Pass(*fields)
    walk.rows, walk.cols = rows, cols
    return walk


def _blocks(walk: Pass) -> int:
    lines = (KERNEL_LINES if walk.step == 1 else 800) if walk.whole else (TAP_LINES if walk.spread == 1 else 850)
    return -(-walk.in_channels // max(1, min(walk.in_channels, lines // walk.lines)))


@cache
def _tile(fields: tuple[int, ...], survivors: float, limit: int) -> tuple[int, int]:
    tiles = [(rows, cols) for cols in COLUMNS for rows in range(1, ROWS + 1) if rows * cols <= limit]
    return min(tiles, key=lambda tile: (_cost(_tiled(fields, *tile), survivors), tile))


def _cost(walk: Pass, survivors: float) -> float:
    """Cycles for each product of a vector that an output needs."""
    high, wide = -(-walk.out_height // walk.spread), -(-walk.out_width // walk.spread)
    rows = high / -(-high // walk.rows)  # shared out evenly
    size, needed = rows * walk.cols, rows * wide / -(-wide // walk.cols)
    run = survivors / walk.spread**2 * walk.in_channels / _blocks(walk)
    products = size / 2 + 1 if walk.whole else (size + 2.5) / 2  # two a cycle, or two reads
    sums = (
        40 + (1.2 if walk.spread == 1 else 5) * size
    )  # they come and go with every strip, from afar if classes share it
    pack = 4 * walk.lines * walk.in_channels / _blocks(walk) / (walk.out_channels * walk.spread**2)
    return (run * max(products, 4.0) + sums + pack) / (run * needed)
