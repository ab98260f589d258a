"""Indices of generated code for few images: kernels listed by input channel, pattern by pattern, then by output."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.kernels.codegen.book import Book, drawings
from campfire.kernels.codegen.flat import Flat, FlatNeed, flat_ahead, flat_back
from campfire.kernels.codegen.flat_source import FlatTiles
from campfire.kernels.codegen.index import Filters, PatternIndex, Walk, in_groups

AHEAD = 96  # entries that follow the last of ``which``: patterns_flat.h reads so far ahead


@dataclass(frozen=True)
class FlatIndex(PatternIndex):
    """Both directions of one layer; group chunk C + c has the kernels of input c, ``entry`` says where an output's sums lie.

    >>> from campfire.kernels.lanes.plan import Geometry
    >>> positions = torch.tensor([0, 1, 3, 4, 9, 10, 12, 13])
    >>> index = FlatIndex(positions, Geometry(1, 2, 8, 8, 1, 3, 3, padding=1))
    >>> index.ahead.count.tolist(), index.ahead.tiles.patterns, index.back.tiles.patterns
    ([[1], [1]], ((0, 1, 3, 4),), ((8, 7, 5, 4),))
    """

    @property
    def need_ahead(self) -> FlatNeed:
        return self._flat_need(flat_ahead(self.geometry))

    @property
    def need_back(self) -> FlatNeed:
        return self._flat_need(flat_back(self.geometry))

    def ahead_by(self, walk: Walk) -> Filters:
        assert isinstance(walk, Flat)
        return _listed(self.book, walk, list(range(self._taps)), *self._channels)

    def back_by(self, walk: Walk) -> Filters:
        assert isinstance(walk, Flat)
        return _listed(self.book, walk, list(range(self._taps))[::-1], *reversed(self._channels))

    @property
    def _taps(self) -> int:
        return self.geometry.taps_high * self.geometry.taps_wide

    def _flat_need(self, walk: Flat) -> FlatNeed:
        share = len(self.book.kernel) / (walk.out_channels * walk.in_channels)
        return FlatNeed(walk, int(self.book.patterns.sum(1).max()), share, self.lanes)


def _listed(book: Book, walk: Flat, taps: list[int], out: Tensor, read: Tensor) -> Filters:
    """Every kernel, by chunk, input, pattern and output; ``taps``: what each of a kernel's weights reads under."""
    patterns = tuple(tuple(taps[t] for t in p.nonzero()[:, 0].tolist()) for p in book.patterns)
    tiles = FlatTiles(patterns, drawings(book, walk.taps_wide), walk.sizes, walk.tiles == 1)
    group, entry = out // walk.chunk * walk.in_channels + read, out % walk.chunk * walk.widest
    start, at, entry, count, which = in_groups(book, group, walk.chunks * walk.in_channels, out, entry)
    return Filters(walk, tiles, start, at, entry, count, torch.cat([which, which.new_zeros(AHEAD)]))
