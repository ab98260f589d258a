"""Indices of generated code: kernels listed as filters visit them, strip by strip and pattern by pattern (FKW)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from campfire.kernels.codegen_book import Book, drawing
from campfire.kernels.codegen_plan import heights, with_tile
from campfire.kernels.codegen_source import Tiles
from campfire.kernels.lanes_index import Index, under_taps
from campfire.kernels.lanes_plan import Geometry, Pass, reads, reads_back


@dataclass(frozen=True)
class Filters:
    """One direction: group (class blocks + block) K + k has the kernels ``[start[i], start[i + 1])``.

    ``at`` int32 [groups] is a group's first value; ``entry`` int32 [kernels] the line of the strip that a kernel reads and,
    16 bits up, where its values stand behind ``at``; ``count`` int16 [groups, P] how many have each pattern; ``which`` int32
    [n] the order of the values, None where it is their own.
    """

    walk: Pass
    tiles: Tiles
    start: Tensor
    at: Tensor
    entry: Tensor
    count: Tensor
    which: Tensor | None


@dataclass(frozen=True)
class PatternIndex(Index):
    """Both directions of one layer, each made when it is first asked for.

    >>> from campfire.kernels.lanes_plan import Geometry
    >>> positions = torch.tensor([0, 1, 3, 4, 9, 10, 12, 13])
    >>> index = PatternIndex(positions, Geometry(16, 2, 8, 8, 1, 3, 3, padding=1))
    >>> index.ahead.count.tolist(), index.ahead.tiles.drawn[0]
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
        walk = self._tile(reads(self.geometry, whole=False))
        g = self.geometry
        lines = torch.tensor([walk.line(r, s) for r in range(g.taps_high) for s in range(g.taps_wide)])
        return _listed(self.book, walk, torch.zeros_like(lines), lines, g, back=False)

    @cached_property
    def back(self) -> Filters:
        """For the gradient of the input."""
        walk = self._tile(reads_back(self.geometry, whole=False))
        return _listed(self.book, walk, *under_taps(walk, self.geometry), self.geometry, back=True)

    def _tile(self, walk: Pass) -> Pass:
        kernels = len(self.book.kernel)
        share = kernels / (self.geometry.outputs * self.geometry.inputs)
        return with_tile(walk, self.values / max(1, kernels), int(self.book.patterns.sum(1).max()), share, self.lanes)


class _Pieces:
    """What each class of outputs sees of the kernels: of each the part of its pattern that reaches the class, if any."""

    def __init__(self, book: Book, classes: Tensor, count: int):
        self.patterns: list[Tensor] = []  # of a class: bool [P, R S]
        found = []
        for which in range(count):
            part = book.patterns & (classes == which)
            living = part.any(1)
            patterns, number = torch.unique(part[living], dim=0, return_inverse=True)
            names = torch.full((len(part),), -1)
            names[living] = number
            self.patterns.append(patterns)
            mine = names[book.pattern]
            kernel = (mine >= 0).nonzero()[:, 0]
            found.append(torch.stack([kernel, torch.full_like(kernel, which), mine[kernel]]))
        self.kernel, self.which, self.pattern = torch.cat(found, 1)
        self.most = max(1, *(len(patterns) for patterns in self.patterns))

    def sort(self, key: Tensor) -> None:
        """By a key, which has a number for every piece."""
        order = torch.argsort(key)
        self.kernel, self.which, self.pattern = self.kernel[order], self.which[order], self.pattern[order]

    @property
    def taps(self) -> Tensor:
        """Of every piece: bool [n, R S]."""
        first = torch.tensor([0, *(len(patterns) for patterns in self.patterns)]).cumsum(0)
        return torch.cat(self.patterns)[first[self.which] + self.pattern]


def _listed(book: Book, walk: Pass, classes: Tensor, lines: Tensor, geometry: Geometry, back: bool) -> Filters:
    """Every kernel once in each class of outputs that its taps reach."""
    pieces = _Pieces(book, classes, walk.spread**2)
    outputs, inputs = book.kernel // geometry.inputs, book.kernel % geometry.inputs
    out, read = (inputs, outputs) if back else (outputs, inputs)

    def group() -> Tensor:
        block = pieces.which * walk.blocks + read[pieces.kernel] // walk.block
        return block * walk.out_channels + out[pieces.kernel]

    pieces.sort((group() * pieces.most + pieces.pattern) * walk.in_channels + read[pieces.kernel])
    mine, groups = group(), walk.spread**2 * walk.blocks * walk.out_channels
    count = torch.bincount(mine * pieces.most + pieces.pattern, minlength=groups * pieces.most).view(groups, -1)
    start = torch.cat([count.new_zeros(1), count.sum(1).cumsum(0)])
    place, which = _reordered(book, pieces) if back else (_first(book)[pieces.kernel], None)
    at = torch.full((groups,), 2**40).scatter_reduce(0, mine, place, "amin")
    entry = read[pieces.kernel] % walk.block * walk.lines + ((place - at[mine]) << 16)
    tiles = _tiles(pieces, walk, lines, geometry.taps_wide)
    return Filters(walk, tiles, start.int(), at.int(), entry.int(), count.short(), which)


def _first(book: Book) -> Tensor:
    """Where the values of every kernel begin."""
    sizes = book.patterns.sum(1)[book.pattern]
    return sizes.cumsum(0) - sizes


def _reordered(book: Book, pieces: _Pieces) -> tuple[Tensor, Tensor]:
    """Where the values of every piece begin if they follow each other, and which they then are."""
    taps = pieces.taps
    sizes = taps.sum(1)
    rank = (book.patterns.cumsum(1) - 1)[book.pattern[pieces.kernel]]
    which = (_first(book)[pieces.kernel, None] + rank)[taps]
    return sizes.cumsum(0) - sizes, which.int()


def _tiles(pieces: _Pieces, walk: Pass, lines: Tensor, wide: int) -> Tiles:
    return Tiles(
        tuple(tuple(tuple(lines[taps].tolist()) for taps in patterns) for patterns in pieces.patterns),
        tuple(tuple(drawing(taps.tolist(), wide) for taps in patterns) for patterns in pieces.patterns),
        heights(walk),
        walk.cols,
        walk.pitch,
    )
