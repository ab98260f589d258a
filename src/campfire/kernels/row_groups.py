"""Row groups: outputs that read nearly the same input channels, which a dense kernel can serve together."""

from dataclasses import dataclass

import torch
from torch import Tensor

MOST = 8  # groups: each of them reads its input, and calls the library, by itself
DISTINCT = 64  # sets of channels up to which it is worth to look for groups
WASTE = 0.01  # of the layer's work that one group less may cost


@dataclass(frozen=True)
class RowGroup:
    """Outputs int64 [n] and the input channels int64 [m] that any of them reads, both rising."""

    rows: Tensor
    channels: Tensor

    @property
    def work(self) -> int:
        """Kernels that are computed."""
        return len(self.rows) * len(self.channels)


def row_groups(reads: Tensor) -> list[RowGroup]:
    """Groups of few sets of channels, merged where that costs little; outputs that read nothing are in none.

    Args:
        reads: bool [K, C]: whether output k reads input channel c.

    >>> reads = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]).bool()
    >>> [(g.rows.tolist(), g.channels.tolist()) for g in row_groups(reads)]
    [([0, 3], [0, 1]), ([1], [2, 3])]
    """
    living = reads.any(1).nonzero()[:, 0]
    if not len(living):
        return []
    sets, of_row = torch.unique(reads[living], dim=0, return_inverse=True)
    if len(sets) > DISTINCT:
        sets, of_row = sets.any(0, keepdim=True), torch.zeros_like(of_row)
    counts = torch.bincount(of_row, minlength=len(sets))
    belongs = _merged(sets.double(), counts.double(), WASTE * reads.numel())[of_row]
    groups = [living[belongs == group] for group in belongs.unique()]
    groups.sort(key=lambda rows: int(rows[0]))
    return [RowGroup(rows, reads[rows].any(0).nonzero()[:, 0]) for rows in groups]


def _merged(sets: Tensor, counts: Tensor, waste: float) -> Tensor:
    """The group [sets] of each set, after merging the cheapest pair as long as it is cheap, or groups are too many."""
    belongs, left = torch.arange(len(sets), device=sets.device), len(sets)
    overlap = sets @ sets.T
    while left > 1:
        sizes = overlap.diagonal()
        union = sizes[:, None] + sizes - overlap
        cost = (counts[:, None] + counts) * union - (counts * sizes)[:, None] - counts * sizes
        gone = counts == 0
        cost.masked_fill_(gone | gone[:, None], torch.inf).fill_diagonal_(torch.inf)
        cheapest = int(cost.argmin())
        a, b = sorted((cheapest // len(sets), cheapest % len(sets)))
        if left <= MOST and float(cost[a, b]) > waste:
            break
        sets[a] = torch.maximum(sets[a], sets[b])
        overlap[a] = overlap[:, a] = sets @ sets[a]
        counts[a] += counts[b]
        counts[b] = 0
        belongs[belongs == b] = a
        left -= 1
    return belongs
