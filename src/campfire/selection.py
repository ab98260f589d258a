"""Exact selection: the best of many, by count and never by threshold (floor 1: torch only).

Everywhere: a dead entry is never selected, and among equal scores the lowest index goes first.
"""

import numpy as np
import torch
from torch import Tensor

from campfire.errors import CampfireError
from campfire.native import masks


def guarded_floor(x: float) -> int:
    """``floor(x)``, safe against binary fractions: 0.7 * 10 is 7.

    >>> guarded_floor(0.29 * 100)
    29
    """
    return int(np.floor(x + 1e-9))


def keep_best(score: Tensor, count: int, alive: Tensor | None = None) -> Tensor:
    """The ``count`` best-scored living entries of a flat score [n] >= 0, as bool [n].

    On the CPU by native code, a histogram of leading digits and then its one bin that matters; without it by one introselect
    (numpy's, vectorised). Both are many times faster than a sorted ``topk``.

    >>> keep_best(torch.tensor([3.0, 1.0, 2.0, 2.0]), 2).tolist()
    [True, False, False, True]

    Raises:
        CampfireError: fewer than ``count`` entries live, or the scores hold NaN.
    """
    if (best := masks.keep_best(score, count, alive)) is not None:
        return best
    living = score.numel() if alive is None else int(alive.count_nonzero())
    if count >= living:
        if count > living:
            raise CampfireError(f"cannot keep {count} of {living} living entries; masks never revive")
        return torch.ones_like(score, dtype=torch.bool) if alive is None else alive.clone()
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    if score.device.type == "cpu":
        score = score if score.dtype in (torch.float32, torch.float64) else score.float()
        keep = _keep_best_cpu(score.detach().numpy(), count, None if alive is None else alive.numpy())
        return torch.from_numpy(keep)
    return _keep_best(score, count, alive)


def _keep_best_cpu(score: np.ndarray, count: int, alive: np.ndarray | None) -> np.ndarray:
    # Dead entries are taken out first: introselect is slow on many equal values, such as their zeros.
    living = score if alive is None else np.compress(alive, score)
    cut = np.partition(living, living.size - count)[living.size - count]
    keep, tied = score > cut, score == cut
    if alive is not None:
        keep &= alive
        tied &= alive
    last = np.flatnonzero(tied)
    missing = count - int(np.count_nonzero(keep))
    if missing > last.size:
        raise CampfireError("the scores hold NaN: has the training diverged?")
    keep[last[last.size - missing :]] = True
    return keep


def _keep_best(score: Tensor, count: int, alive: Tensor | None) -> Tensor:
    """The same on any device."""
    if alive is not None:
        score = score.masked_fill(~alive, -1.0)
    cut = score.topk(count, sorted=False).values.min()
    keep, last = score > cut, (score == cut).nonzero()[:, 0]
    keep[last[last.numel() - (count - int(keep.count_nonzero())) :]] = True
    return keep


def ranks(score: Tensor) -> Tensor:
    """The rank of every entry in its row of [n, t], 0 for the best, as uint8 [t, n] (transposed: t is small).

    Counts who beats whom, t (t - 1) / 2 vectorised comparisons, several times faster than sorting each row.

    >>> ranks(torch.tensor([[5.0, 7.0, 5.0]])).flatten().tolist()
    [2, 0, 1]
    """
    if (native := masks.ranks(score)) is not None:
        return native
    planes = score.t().contiguous()
    rank = torch.zeros(planes.shape, dtype=torch.uint8, device=score.device)
    for i in range(len(planes)):
        for j in range(i + 1, len(planes)):
            lost = planes[i] > planes[j]  # on a tie the later entry wins
            rank[j] += lost
            rank[i] += ~lost
    return rank


def keep_best_rows(score: Tensor, count: int, alive: Tensor | None = None) -> Tensor:
    """The ``count`` best-scored entries of every row of [n, t], t <= 255, as bool [n, t]; of the living ones at most.

    >>> keep_best_rows(torch.tensor([[1.0, 2.0, 3.0], [3.0, 3.0, 0.0]]), 1).int().tolist()
    [[0, 0, 1], [0, 1, 0]]
    """
    if (best := masks.keep_best_rows(score, count, alive)) is not None:
        return best
    if alive is not None:
        score = score.masked_fill(~alive, -1.0)
    if score.shape[1] > 64:  # long rows: comparisons grow with the square
        order = score.argsort(dim=1, stable=True)
        keep = torch.ones_like(score, dtype=torch.bool).scatter_(1, order[:, : score.shape[1] - count], False)
    else:
        keep = (ranks(score) < count).t()
    return (keep if alive is None else keep & alive).contiguous()
