"""Indices of generated code: kernels listed as filters visit them, strip by strip and pattern by pattern (FKW)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from campfire.kernels.codegen.book import Book, drawings
from campfire.kernels.codegen.flat import Flat, FlatNeed
from campfire.kernels.codegen.flat_source import FlatTiles
from campfire.kernels.codegen.plan import Need, heights
from campfire.kernels.codegen.source import Tiles
from campfire.kernels.lanes.index import Index
from campfire.kernels.lanes.plan import Pass, reads, reads_back

Walk = Pass | Flat


@dataclass(frozen=True)
class Filters:
    """One direction (FKW): group block K + k has the kernels ``[start[i], start[i + 1])``, pattern by pattern.

    ``at`` int32 [groups] is a group's first value in that order, ``entry`` uint16 [kernels] the line of the strip that a
    kernel reads, ``count`` uint16 [groups, P] how many have each pattern, and ``which`` int32 [kernels] where a kernel's values
    begin in the layer's own.
    """

    walk: Walk
    tiles: Tiles | FlatTiles
    start: Tensor
    at: Tensor
    entry: Tensor
    count: Tensor
    which: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the index."""
        return sum(t.numel() * t.element_size() for t in (self.start, self.at, self.entry, self.count, self.which))


@dataclass(frozen=True)
class PatternIndex(Index):
    """Both directions of one layer, each made when it is first asked for.

    >>> from campfire.kernels.lanes.plan import Geometry
    >>> positions = torch.tensor([0, 1, 3, 4, 9, 10, 12, 13])
    >>> index = PatternIndex(positions, Geometry(16, 2, 8, 8, 1, 3, 3, padding=1))
    >>> index.ahead.count.tolist(), index.ahead.tiles.drawn
    ([[2]], (('x x .', 'x x .', '. . .'),))
    """

    @cached_property
    def scattered(self) -> Index:
        """The same survivors for kernels that know no patterns."""
        return Index(self.positions, self.geometry, self.lanes)

    @cached_property
    def book(self) -> Book:
        """The patterns and who has which."""
        return Book.of(self.positions, self.geometry.taps_high * self.geometry.taps_wide)

    @cached_property
    def ahead(self) -> Filters:
        """For the forward pass."""
        return self.ahead_by(self.need_ahead.chosen())

    @cached_property
    def back(self) -> Filters:
        """For the gradient of the input."""
        return self.back_by(self.need_back.chosen())

    @property
    def need_ahead(self) -> Need | FlatNeed:
        """What the forward pass wants of a tile."""
        return self._need(reads(self.geometry, whole=False))

    @property
    def need_back(self) -> Need | FlatNeed:
        """What the gradient of the input wants of a tile."""
        return self._need(reads_back(self.geometry, whole=False))

    def ahead_by(self, walk: Walk) -> Filters:
        """For the forward pass by a given tile."""
        assert isinstance(walk, Pass)
        lines = [walk.line(r, s) for r in range(walk.taps_high) for s in range(walk.taps_wide)]
        return _listed(self.book, walk, lines, *self._channels)

    def back_by(self, walk: Walk) -> Filters:
        """For the gradient of the input, which reads the output's under the same taps, turned round."""
        assert isinstance(walk, Pass)
        lines = [walk.line(r, s) for r in range(walk.taps_high) for s in range(walk.taps_wide)]
        return _listed(self.book, walk, lines[::-1], *reversed(self._channels))

    @property
    def _channels(self) -> tuple[Tensor, Tensor]:
        """The output and the input of every kernel."""
        return self.book.kernel // self.geometry.inputs, self.book.kernel % self.geometry.inputs

    def _need(self, walk: Pass) -> Need:
        kernels, taps = len(self.book.kernel), self.book.patterns.sum(1)
        share = kernels / (self.geometry.outputs * self.geometry.inputs)
        return Need(walk, self.values / kernels, int(taps.max()), share, self.lanes)


def _listed(book: Book, walk: Pass, lines: list[int], out: Tensor, read: Tensor) -> Filters:
    """Every kernel, by strip, filter, pattern and what it reads."""
    tiles = Tiles(
        tuple(tuple(lines[t] for t in p.nonzero()[:, 0].tolist()) for p in book.patterns),
        drawings(book, walk.taps_wide),
        heights(walk),
        walk.cols,
        walk.pitch,
    )
    group = read // walk.block * walk.out_channels + out
    entry = read % walk.block * walk.lines
    return Filters(walk, tiles, *in_groups(book, group, walk.blocks * walk.out_channels, read, entry))


def in_groups(book: Book, group: Tensor, groups: int, within: Tensor, entry: Tensor) -> tuple[Tensor, ...]:
    """``start, at, entry, count, which`` of `Filters`; kernels of a group and a pattern are ordered by ``within``."""
    patterns, taps = len(book.patterns), book.patterns.sum(1)
    key = group * patterns + book.pattern
    order = torch.argsort(key * (int(within.max()) + 1) + within)
    count = torch.bincount(key, minlength=groups * patterns).view(groups, patterns)
    sizes, at = taps[book.pattern], (count * taps).sum(1)
    which, at = (sizes.cumsum(0) - sizes)[order], at.cumsum(0) - at
    start = torch.cat([count.new_zeros(1), count.sum(1).cumsum(0)])
    return start.int(), at.int(), entry[order].to(torch.uint16), count.to(torch.uint16), which.int()
