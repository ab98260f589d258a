"""Row blocks: a weight cut into blocks of some ordered outputs x some ordered inputs, and put together again."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from campfire.selection import guarded_floor, keep_best, keep_best_rows

Shape = tuple[int, ...]


class Kind(NamedTuple):
    """Blocks of one size; at the lower and the right edge they are smaller, and compete with their like."""

    rows: slice  # of the ordered outputs
    height: int
    columns: slice  # of the ordered inputs
    width: int

    @property
    def groups(self) -> int:
        """Groups of rows."""
        return (self.rows.stop - self.rows.start) // self.height

    @property
    def runs(self) -> int:
        """Blocks in a group."""
        return (self.columns.stop - self.columns.start) // self.width

    @property
    def blocks(self) -> int:
        """All of them."""
        return self.groups * self.runs


class Blocks(NamedTuple):
    """How a weight [K, C, R, S] is cut: ``taps`` is 1 where all taps live together, else R S.

    >>> [(kind.blocks, kind.height, kind.width) for kind in Blocks((40, 8, 3, 3), 32, 4, 1).kinds()]
    [(2, 32, 4), (2, 8, 4)]
    """

    shape: Shape
    rows: int
    channels: int
    taps: int

    def kinds(self) -> list[Kind]:
        """Inner blocks, right edge, lower edge, corner: those there are."""
        rows, columns = (_sides(*x) for x in ((self.shape[0], self.rows), (self.shape[1], self.channels)))
        return [Kind(r, h, c, w) for r, h in rows for c, w in columns]

    def groups(self) -> list[tuple[slice, int, slice]]:
        """Of each height: the rows, the height, and the numbers of the groups."""
        found, first = [], 0
        for rows, height in _sides(self.shape[0], self.rows):
            count = (rows.stop - rows.start) // height
            found.append((rows, height, slice(first, first + count)))
            first += count
        return found

    def weights(self, kind: Kind) -> int:
        """Weights in a unit, that is in one tap, or all, of a block."""
        return kind.height * kind.width * (self.shape[2] * self.shape[3] // self.taps)

    def sums(self, x: Tensor, order: Tensor, inputs: Tensor) -> list[Tensor]:
        """Of every kind, the sums over its units in float64, [blocks, taps].

        Args:
            order: row j is output ``order[j]``, [K].
            inputs: column j of a group of rows is input ``inputs[group, j]``, [groups, C].
        """
        rows = x.flatten(2).unflatten(2, (self.taps, -1)).sum(3, dtype=torch.float64)[order]  # [K, C, taps]
        found = []
        for at, height, groups in self.groups():
            group = rows[at].unflatten(0, (-1, height)).sum(1)
            group = group.gather(1, inputs[groups, :, None].expand_as(group))
            found += [
                group[:, columns].unflatten(1, (-1, width)).sum(2).flatten(0, 1)
                for columns, width in _sides(self.shape[1], self.channels)
            ]
        return found

    def spread(self, units: Sequence[Tensor], order: Tensor, inputs: Tensor) -> Tensor:
        """The way back: every weight gets its unit's value, [K, C, R, S]."""
        rows, per_height = [], len(_sides(self.shape[1], self.channels))
        for i, (_, height, groups) in enumerate(self.groups()):
            count = groups.stop - groups.start
            parts = [
                x.view(count, -1, self.taps).repeat_interleave(width, 1)
                for x, (_, width) in zip(units[i * per_height :], _sides(self.shape[1], self.channels), strict=False)
            ]
            group = torch.cat(parts, 1)
            group = torch.empty_like(group).scatter_(1, inputs[groups, :, None].expand_as(group), group)
            rows.append(group.repeat_interleave(height, 0))
        in_order = torch.empty_like(found := torch.cat(rows)).index_copy_(0, order, found)  # [K, C, taps]
        taps = self.shape[2] * self.shape[3] // self.taps
        return in_order.repeat_interleave(taps, 2).view(self.shape)

    def places(self, order: Tensor, inputs: Tensor) -> list[Tensor]:
        """Of every kind, the sum of its units' places in the weight, up to a constant: what ties are broken by."""
        _, channels, height, width = self.shape
        kernel = height * width
        tap = torch.arange(self.taps, device=order.device, dtype=torch.float64)
        found = []
        for at, high, groups in self.groups():
            row = order[at].view(-1, high).sum(1, dtype=torch.float64)
            for columns, wide in _sides(channels, self.channels):
                column = inputs[groups, columns].unflatten(1, (-1, wide)).sum(2, dtype=torch.float64)
                block = kernel * (row[:, None] * wide * channels + column * high)  # [groups, runs]
                found.append((block[..., None] + tap * (high * wide)).flatten(0, 1))
        return found

    def natural(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Outputs and inputs as they come: order [K], inputs [groups, C]."""
        rows, columns = (torch.arange(n, device=device) for n in self.shape[:2])
        return rows, columns.expand(-(-self.shape[0] // self.rows), -1)


def _sides(size: int, side: int) -> list[tuple[slice, int]]:
    """Where whole sides lie along an axis, and where the remainder, if any."""
    whole = size // side * side
    return [x for x in ((slice(0, whole), side), (slice(whole, size), size - whole)) if x[0].stop > x[0].start]


def living_units(blocks: int, taps: int, thin: int, sparsity: float) -> int:
    """How many units of ``blocks`` x ``taps`` live: all blocks, down to ``thin`` taps each; then only so many blocks.

    >>> [living_units(16, 9, 4, s) for s in (0, 0.5, 0.56, 0.8)]
    [144, 72, 64, 28]
    """
    wanted = blocks * taps * (1 - sparsity)
    if wanted >= blocks * thin:
        return max(guarded_floor(wanted + 0.5), blocks * thin)
    return thin * guarded_floor(wanted / thin + 0.5)


def best_units(
    score: Tensor, alive: Tensor, count: int, thin: int, place: Tensor, prefer: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """The best ``count`` living units of blocks [n, taps], bool: every block keeps ``thin`` or more, or only the best
    blocks keep ``thin``.

    Args:
        place: [n, taps]; of equal scores the lowest place goes first.
        prefer: the blocks, bool [n], that stay before all others, told by the ranks of all (n - 1 for the best).
    """
    if score.shape[1] == 1:  # a block has nothing to lose but itself: on a GPU nobody waits to see how many live
        value, living, place = score[:, 0], alive[:, 0], place[:, 0]
        return _best(_preferred(value, living, place, prefer), count, living, place)[:, None]
    core = keep_best_rows(score, thin, alive)
    if (spare := count - int(core.count_nonzero())) >= 0:
        rest = (alive & ~core).flatten()
        return core | _best(score.flatten(), min(spare, int(rest.count_nonzero())), rest, place.flatten()).view_as(core)
    value, living, place = (score * core).sum(1), core.any(1), (place * core).sum(1)
    value = _preferred(value, living, place, prefer)
    return core & _best(value, min(count // thin, int(living.count_nonzero())), living, place)[:, None]


def _preferred(value: Tensor, living: Tensor, place: Tensor, prefer: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Values of blocks, above all others those of the blocks that ``prefer`` tells by their ranks."""
    if prefer is None:
        return value
    order = place.argsort(stable=True)
    order = order[value.masked_fill(~living, -1.0)[order].argsort(stable=True)]
    return value + prefer(order.argsort()) * (1 + value.max())


def _best(score: Tensor, count: int, alive: Tensor, place: Tensor) -> Tensor:
    """`keep_best` where of equal scores the lowest place goes first."""
    order = place.argsort(stable=True)
    best = keep_best(score[order], count, alive[order])
    return torch.empty_like(best).index_copy_(0, order, best)
