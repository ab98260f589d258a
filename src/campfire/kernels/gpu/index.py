"""Blocks for tensor cores: the largest boxes of a packed weight that live whole, and what each pass reads of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.kernels.base import Conv
from campfire.packed import Packed
from campfire.packed.tile import grid, read_tile

SIDES = (128, 64, 32, 16, 8, 4, 2, 1)
CHUNK = 64  # channels, at most, that one product sums over
FIELDS = 8  # of an entry, see `Reads`; 32 bytes are one sector
UNIT = 16  # least side of a block, least outputs of a tile


@dataclass(frozen=True)
class Blocks:
    """Living boxes of ``height`` ordered outputs x ``width`` inputs at one tap, sorted by outputs, inputs, tap.

    The tiles that a weight is packed in may be smaller or larger than a box. Inside a box the value of output k and input
    c lies at ``base + k // K0 * down + k % K0 + c // C0 * across + c % C0 * K0``, for tiles of K0 outputs x C0 inputs.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    height: int
    width: int
    group: Tensor  # int64 [n]: outputs, in heights
    run: Tensor  # int64 [n]: inputs, in widths
    tap: Tensor  # int64 [n]: r S + s
    base: Tensor
    down: Tensor
    across: Tensor

    @classmethod
    def of(cls, packed: Packed) -> "Blocks":
        """Of a weight in layout unit or grouped whose tiles hold one tap or all."""
        shape, tile, number = packed.shape, read_tile(packed.parts["tile"]), _numbers(packed)
        height, width = sides(packed)
        taps, whole, size = shape[2] * shape[3], tile[2:] == shape[2:], tile[0] * tile[1] * tile[2] * tile[3]
        corners = number[:: max(height // tile[0], 1), :: max(width // tile[1], 1)]
        corners = corners.repeat_interleave(max(tile[0] // height, 1), 0)
        corners = corners.repeat_interleave(max(tile[1] // width, 1), 1)
        group, run, tap = (corners.expand(-1, -1, taps) >= 0).nonzero().unbind(1)
        row, column, which = group * height // tile[0], run * width // tile[1], 0 if whole else tap
        first = number[row, column, which]
        inside = ((tap if whole else 0) * tile[1] + run * width % tile[1]) * tile[0] + group * height % tile[0]
        down = number[row + 1, column, which] - first if height > tile[0] else torch.zeros_like(first)
        across = number[row, column + 1, which] - first if width > tile[1] else torch.zeros_like(first)
        base = first * size + inside
        return cls(shape, tile, height, width, group, run, tap, base, down * size, across * size)

    def inner(self, along: str, at: int) -> Tensor:
        """The base of the part of each box that begins ``at`` outputs (or inputs) further."""
        if along == "outputs":
            return self.base + at // self.tile[0] * self.down + at % self.tile[0]
        return self.base + at // self.tile[1] * self.across + at % self.tile[1] * self.tile[0]


@dataclass(frozen=True)
class Reads:
    """Of every group of results, in every phase, the boxes that reach it.

    ``entry`` int32 [n + 1, 8]: the first channel of the source, rows and columns from a pixel to the one that it reads,
    ``base``, ``down`` and ``across`` as in `Blocks`, two of padding. Places are in units of 16, which all are multiples of.
    Sorted by phase and group of results; then one that nobody uses, for the kernel reads a step ahead.
    """

    start: Tensor  # int32 [phases x groups + 1]
    rank: Tensor  # int32 [phases x groups]: groups of a phase, those with most to do first
    entry: Tensor
    groups: int  # of results, in a phase
    side: int  # results in a group
    chunk: int  # channels of the source in an entry

    @classmethod
    def ahead(cls, blocks: Blocks, conv: Conv) -> "Reads":
        """For the outputs: pixel (i, j) reads (stride i + rows, stride j + columns) of x. One phase."""
        chunk = min(blocks.width, CHUNK)
        r, s = blocks.tap // blocks.shape[3], blocks.tap % blocks.shape[3]
        offsets = [n * conv.dilation - conv.padding for n in (r, s)]
        parts = [
            (blocks.run * blocks.width + at, *offsets, blocks.inner("inputs", at))
            for at in range(0, blocks.width, chunk)
        ]
        groups = blocks.shape[0] // blocks.height
        return cls._of(blocks, [blocks.group] * len(parts), parts, 1, groups, blocks.height, chunk)

    @classmethod
    def back(cls, blocks: Blocks, conv: Conv) -> "Reads":
        """For the inputs: pixel (stride i + p, stride j + q) reads (i + rows, j + columns) of dy, in phase (p, q)."""
        chunk, stride = min(blocks.height, CHUNK), conv.stride
        r, s = blocks.tap // blocks.shape[3], blocks.tap % blocks.shape[3]
        groups, owners, parts = blocks.shape[1] // blocks.width, [], []
        for phase in range(stride * stride):
            reach = [
                place + conv.padding - n * conv.dilation for n, place in zip((r, s), divmod(phase, stride), strict=True)
            ]
            mine = torch.where((reach[0] % stride == 0) & (reach[1] % stride == 0), phase * groups + blocks.run, -1)
            offsets = [n // stride for n in reach]
            for at in range(0, blocks.height, chunk):
                owners.append(mine)
                parts.append((blocks.group * blocks.height + at, *offsets, blocks.inner("outputs", at)))
        return cls._of(blocks, owners, parts, stride * stride, groups, blocks.width, chunk)

    @classmethod
    def _of(
        cls,
        blocks: Blocks,
        owners: list[Tensor],
        parts: list[tuple[Tensor, ...]],
        phases: int,
        groups: int,
        side: int,
        chunk: int,
    ) -> "Reads":
        owner, zero = torch.cat(owners), torch.zeros_like(blocks.base)
        steps = blocks.down // UNIT, blocks.across // UNIT, zero, zero
        rows = [torch.stack([source // UNIT, *offsets, base // UNIT, *steps], 1) for source, *offsets, base in parts]
        order = owner.argsort(stable=True)
        order = order[owner[order] >= 0]
        lengths = torch.bincount(owner[order], minlength=phases * groups)
        start = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        rank = lengths.view(phases, groups).argsort(dim=1, descending=True, stable=True).flatten()
        entry = torch.cat([torch.cat(rows)[order], zero.new_zeros(1, FIELDS)])
        start, rank, entry = (t.to(torch.int32).contiguous() for t in (start, rank, entry))
        return cls(start, rank, entry, groups, side, chunk)

    def teams(self, size: int) -> Tensor:
        """Entries of one group of results taken together: int32 [n, 4]: the first, how many, the group, padding."""
        start = self.start.tolist()
        rows = [
            (first, min(size, start[g + 1] - first), g, 0)
            for g in range(self.groups)
            for first in range(start[g], start[g + 1], size)
        ]
        return torch.tensor(rows, dtype=torch.int32, device=self.start.device).view(-1, 4)


def sides(packed: Packed) -> tuple[int, int]:
    """Outputs and inputs, side by side, that live alike: powers of two up to 128, as large as they can be.

    >>> from campfire.mask import Mask
    >>> from campfire.packed import pack
    >>> keep = torch.zeros(128, 96, 3, 3, dtype=torch.bool)
    >>> keep[:64, 32:64] = True
    >>> packed = pack(torch.randn(128, 96, 3, 3), Mask(keep), "unit")
    >>> packed.parts["tile"].tolist(), sides(packed)
    ([32, 4, 3, 3], (64, 32))
    """
    alive, tile = _numbers(packed) >= 0, read_tile(packed.parts["tile"])
    height, width = (_side(alive, axis, packed.shape[axis], tile[axis]) for axis in (0, 1))
    return height, width


def _numbers(packed: Packed) -> Tensor:
    """Of every tile its place among the living, -1 where it is dead: int64 [K / k, C / c, taps in tiles]."""
    unit = packed.parts["unit"].long()
    counts = grid(packed.shape, read_tile(packed.parts["tile"]))
    numbers = unit.new_full((counts[0] * counts[1] * counts[2] * counts[3],), -1)
    numbers[unit] = torch.arange(len(unit), device=unit.device)
    return numbers.view(counts[0], counts[1], -1)


def _side(alive: Tensor, axis: int, size: int, edge: int) -> int:
    """Of an axis of ``size`` weights in tiles of ``edge``."""
    joins = axis == 1 or edge % UNIT == 0  # narrower vectors of outputs are not aligned
    return next(
        n
        for n in SIDES
        if size % n == 0 and (edge % n == 0 or (joins and n % edge == 0 and _alike(alive, axis, n // edge)))
    )


def _alike(alive: Tensor, axis: int, many: int) -> bool:
    """Whether tiles along an axis live or die ``many`` at a time."""
    lines = alive.unflatten(axis, (-1, many))
    return bool((lines == lines.narrow(axis + 1, 0, 1)).all())
