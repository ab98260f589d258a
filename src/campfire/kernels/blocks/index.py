"""Indices of the block kernels: where every entry of a tile reads its input, and who shares a row of gradients."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from campfire.kernels.base import Conv
from campfire.packed import Packed
from campfire.packed.tile import grid, read_tile


@dataclass(frozen=True)
class Tiles:
    """The living tiles of a packed weight, in the order of their values: row group, channel block, first tap."""

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    group: Tensor
    block: Tensor
    corner: Tensor  # the first tap, r S + s

    @classmethod
    def of(cls, packed: Packed) -> "Tiles":
        """Of a weight in layout unit or grouped."""
        tile, unit = read_tile(packed.parts["tile"]), packed.parts["unit"].long()
        _, blocks, high, wide = grid(packed.shape, tile)
        rest, s = unit // wide, unit % wide
        rest, r = rest // high, rest % high
        corner = r * tile[2] * packed.shape[3] + s * tile[3]
        return cls(tuple(packed.shape), tile, rest // blocks, rest % blocks, corner)

    @property
    def groups(self) -> int:
        """How many row groups the weight has."""
        return self.shape[0] // self.tile[0]

    @property
    def whole(self) -> bool:
        """Whether a tile holds all taps of its kernels; else it holds one."""
        return self.tile[2:] == self.shape[2:]

    def starts(self, group: Tensor, groups: int) -> Tensor:
        """Where each of ``groups`` begins in a sorted list, int32 [groups + 1]."""
        starts = torch.zeros(groups + 1, dtype=torch.int32)
        starts[1:] = torch.bincount(group, minlength=groups).cumsum(0)
        return starts


@dataclass(frozen=True)
class Entries:
    """One entry for every (input channel, tap) of a tile, in the order of the values; each holds k weights."""

    start: Tensor  # int32 [groups + 1]
    channel: Tensor  # int32 [entries]
    tap: Tensor  # int32 [entries]: r S + s

    @classmethod
    def of(cls, tiles: Tiles) -> "Entries":
        _, c, r, s = tiles.tile
        y, x, j = (torch.arange(n) for n in (r, s, c))
        tap = (tiles.corner.view(-1, 1, 1, 1) + (y.view(-1, 1, 1) * tiles.shape[3] + x.view(-1, 1))).expand(-1, r, s, c)
        channel = (tiles.block.view(-1, 1, 1, 1) * c + j).expand(-1, r, s, c)
        start = tiles.starts(tiles.group, tiles.groups) * (r * s * c)
        return cls(start, _int32(channel), _int32(tap))

    def offsets(self, taps_wide: int, width: int, channels: int) -> Tensor:
        """Where an entry reads, in floats from its pixel, in rows of ``width`` pixels; int32 [entries]."""
        row, column = self.tap // taps_wide, self.tap % taps_wide
        return _int32((row * width + column) * channels + self.channel)


@dataclass(frozen=True)
class Sets:
    """Channels, four by four, that read the same rows of dy through the same taps: those of a row group (and tap)."""

    start: Tensor  # int32 [sets + 1], in quads
    group: Tensor  # int64 [sets]
    tap: Tensor  # int64 [sets]: the one tap; -1: all taps
    channel: Tensor  # int32 [quads, 4]; C where a quad has no more
    source: Tensor  # int32 [quads, 4]: where a channel's k rows lie in the values; -1 where a quad has no more
    neighbours: bool  # the four lie side by side

    @classmethod
    def of(cls, tiles: Tiles) -> "Sets":
        k, c, r, s = tiles.tile
        taps = 1 if tiles.whole else tiles.shape[2] * tiles.shape[3]
        key = tiles.group * taps + (0 if tiles.whole else tiles.corner)
        order = key.argsort(stable=True)
        live, of_set = torch.unique(key[order], return_inverse=True)
        group, tap = live // taps, torch.full_like(live, -1) if tiles.whole else live % taps
        place = torch.arange(c)
        channel = (tiles.block[order].view(-1, 1) * c + place).view(-1)
        source = (order.view(-1, 1) * (k * c * r * s) + place * k).view(-1)
        of_channel = of_set.repeat_interleave(c)
        if c % 4:
            channel, source, of_channel = _padded(channel, source, of_channel, tiles.shape[1])
        start = tiles.starts(of_channel[::4], len(live))
        return cls(start, group, tap, _int32(channel).view(-1, 4), _int32(source).view(-1, 4), c % 4 == 0)


def _padded(channel: Tensor, source: Tensor, of_set: Tensor, none: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every set's channels filled up to a multiple of four."""
    counts = torch.bincount(of_set)
    room = (counts + 3) // 4 * 4
    first = room.cumsum(0) - room
    place = torch.arange(len(of_set)) - (counts.cumsum(0) - counts)[of_set] + first[of_set]
    size = int(room.sum())
    return (
        torch.full((size,), none).index_copy_(0, place, channel.long()),
        torch.full((size,), -1).index_copy_(0, place, source.long()),
        torch.arange(len(room)).repeat_interleave(room),
    )


@dataclass(frozen=True)
class Phase:
    """The input pixels (i stride + h, j stride + w): their gradient is a convolution of stride 1 over dy with these taps."""

    h: int
    w: int
    taps: tuple[tuple[int, int, int], ...]  # r S + s, and how far down and right of (i, j) it reads dy


@dataclass(frozen=True)
class Phases:
    """All phases of a convolution, and the reach of their taps: from ``low`` to ``high`` rows and columns."""

    phases: tuple[Phase, ...]

    @classmethod
    def of(cls, conv: Conv, taps: tuple[int, int]) -> "Phases":
        """
        >>> [len(phase.taps) for phase in Phases.of(Conv(stride=2, padding=1), (3, 3)).phases]
        [1, 2, 2, 4]
        """
        rows = [_reaching(phase, conv, taps[0]) for phase in range(conv.stride)]
        columns = [_reaching(phase, conv, taps[1]) for phase in range(conv.stride)]
        return cls(
            tuple(
                Phase(h, w, tuple((r * taps[1] + s, down, right) for r, down in rows[h] for s, right in columns[w]))
                for h in range(conv.stride)
                for w in range(conv.stride)
            )
        )

    @cached_property
    def low(self) -> int:
        return min([0, *(min(down, right) for phase in self.phases for _, down, right in phase.taps)])

    @cached_property
    def high(self) -> int:
        return max([0, *(max(down, right) for phase in self.phases for _, down, right in phase.taps)])


@dataclass(frozen=True)
class Reads:
    """Where the sets of every phase, and each of its taps, read a padded copy of dy, and where the taps' weights lie."""

    phase: Tensor  # int32 [phases, 3]: h, w and how many taps
    at: Tensor  # int32 [phases, sets]; -1: the set has no tap in the phase
    place: Tensor  # int32 [taps of all phases]
    source: Tensor  # int32 [taps of all phases]

    @classmethod
    def of(cls, phases: Phases, sets: Sets, tiles: Tiles, columns: int, pixel: int) -> "Reads":
        """For an input whose phases have up to ``columns`` pixels a row, and ``pixel`` floats from pixel to pixel."""
        row, group = columns + phases.high - phases.low, sets.group * tiles.tile[0]
        heads, at, place, source = [], [], [], []
        for phase in phases.phases:
            reads = {tap: ((y - phases.low) * row + x - phases.low) * pixel for tap, y, x in phase.taps}
            if tiles.whole:
                at.append(group)
                place += reads.values()
                source += [tap * tiles.tile[0] * tiles.tile[1] for tap in reads]
            else:  # sets of one tap; those of other phases read nothing
                table = torch.full((tiles.shape[2] * tiles.shape[3],), -1)
                table[list(reads)] = torch.tensor(list(reads.values()), dtype=torch.int64)
                at.append(torch.where(table[sets.tap] < 0, -1, group + table[sets.tap]))
                place, source = [*place, 0], [*source, 0]
            heads.append([phase.h, phase.w, len(reads) if tiles.whole else 1])
        lists = [torch.tensor(x or [0], dtype=torch.int32) for x in (heads, place, source)]
        return cls(lists[0], _int32(torch.stack(at)), lists[1], lists[2])


def _reaching(phase: int, conv: Conv, taps: int) -> list[tuple[int, int]]:
    """The taps through which an output reaches input i * stride + phase, and which output: i + so many."""
    far = [(tap, phase + conv.padding - tap) for tap in range(taps)]
    return [(tap, distance // conv.stride) for tap, distance in far if distance % conv.stride == 0]


def _int32(x: Tensor) -> Tensor:
    return x.reshape(-1).to(torch.int32).contiguous()
