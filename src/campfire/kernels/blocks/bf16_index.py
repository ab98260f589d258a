"""Indices of the bfloat16 block kernels: pairs of inputs, pairs of outputs, and who shares them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.kernels.blocks.index import Entries, Tiles


@dataclass(frozen=True)
class Pairs:
    """One entry for two neighbouring input channels of a tile at one tap, in the order of the values."""

    start: Tensor  # int32 [groups + 1]
    channel: Tensor  # int32 [pairs]: the first of the two
    tap: Tensor  # int32 [pairs]: r S + s
    source: Tensor  # int32 [pairs]: where the first's k weights lie in the values; the second's follow

    @classmethod
    def of(cls, tiles: Tiles) -> "Pairs":
        entries = Entries.of(tiles)
        source = torch.arange(0, len(entries.tap), 2) * tiles.tile[0]
        return cls(entries.start // 2, *(_int32(x) for x in (entries.channel[::2], entries.tap[::2], source)))

    def offsets(self, places: Tensor) -> Tensor:
        """Where an entry reads, in pairs from its pixel; ``places``: of each tap's pixel; int32 [pairs]."""
        return _int32(places[self.tap] + self.channel // 2)


def places_of(taps: tuple[int, int], width: int, pixel: int, phases: int = 1) -> Tensor:
    """Where each tap's pixel lies, in rows of ``width`` pixels, ``pixel`` pairs apart, whose columns take turns in ``phases``.

    >>> places_of((2, 3), 10, 1), places_of((2, 3), 10, 1, phases=2)
    (tensor([ 0,  1,  2, 10, 11, 12]), tensor([ 0,  5,  1, 10, 15, 11]))
    """
    row, column = torch.arange(taps[0]).view(-1, 1), torch.arange(taps[1])
    return ((row * width + column % phases * (width // phases) + column // phases) * pixel).view(-1)


@dataclass(frozen=True)
class Columns:
    """Blocks of input channels side by side that live together in a row group, at one tap; by channels, group and tap."""

    lanes: int  # 16 or 32 channels
    block: Tensor  # int64 [blocks]: of channels
    group: Tensor  # int64 [blocks]: of rows
    tap: Tensor  # int64 [blocks]
    source: Tensor  # int32 [blocks, lanes]: where a channel's k weights lie in the values

    @classmethod
    def of(cls, tiles: Tiles) -> "Columns | None":
        """The widest; None where not even 16 channels live together everywhere."""
        k, c = tiles.tile[:2]
        entries = Entries.of(tiles)
        taps = tiles.shape[2] * tiles.shape[3]
        group = tiles.group.repeat_interleave(c * tiles.tile[2] * tiles.tile[3])
        row = group * taps + entries.tap  # row group and tap
        for lanes in (32, 16):
            if tiles.shape[1] % lanes:
                continue
            rows = tiles.groups * taps
            key = (entries.channel // lanes * rows + row) * lanes + entries.channel % lanes
            key, order = key.sort()
            block, counts = torch.unique_consecutive(key // lanes, return_counts=True)
            if bool((counts == lanes).all()):
                at = block % rows
                return cls(lanes, block // rows, at // taps, at % taps, _int32(order * k).view(-1, lanes))
        return None

    def cut(self, k: int, rows: int) -> "Columns":
        """The same with groups of ``rows`` outputs, where groups have ``k``, a multiple."""
        part, parts = torch.arange(k // rows), k // rows
        return Columns(
            self.lanes,
            self.block.repeat_interleave(parts),
            (self.group.view(-1, 1) * parts + part).view(-1),
            self.tap.repeat_interleave(parts),
            _int32(self.source[:, None] + part[:, None] * rows).view(-1, self.lanes),
        )

    def start(self, reads: Tensor, blocks: int, pairs: int) -> Tensor:
        """Where each of ``blocks`` blocks of channels begins among the entries, ``pairs`` for each of ``reads``; int32."""
        start = torch.zeros(blocks + 1, dtype=torch.int32)
        start[1:] = torch.bincount(self.block[reads], minlength=blocks).cumsum(0) * pairs
        return start

    def offsets(self, reads: Tensor, places: Tensor, pairs: int) -> Tensor:
        """Where the entries of ``reads`` read dy, in pairs from a pixel; ``places``: of each tap's pixel; int32."""
        first = places[self.tap[reads]] + self.group[reads] * pairs
        return _int32(first.view(-1, 1) + torch.arange(pairs))


def _int32(x: Tensor) -> Tensor:
    return x.reshape(-1).to(torch.int32).contiguous()
