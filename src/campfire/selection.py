"""Exact selection: the best of many, by count and never by threshold (floor 1: torch only).

Everywhere: a dead entry is never selected, and among equal scores the lowest index goes first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

from campfire.errors import CampfireError
from campfire.native import masks
from campfire.native.gpu import masks as gpu
from campfire.native.gpu.masks import Part as Part

_collected: ContextVar[list[Tensor] | None] = ContextVar("collected", default=None)
NAN = "the scores hold NaN: has the training diverged?"
REFUSED = f"{NAN} Or earlier masks left less than is to be kept: let no other structure go before this one"

SHORT, MANY = 64, 400  # rows up to here, so many times their length: counting who beats whom is faster than sorting


def far(device: torch.device) -> bool:
    """Whether to look at a number there is to wait: on a GPU."""
    return device.type != "cpu" or gpu.serves(device)


@contextmanager
def unhurried() -> Iterator[list[Tensor]]:
    """Within, selections on a GPU do not wait to see whether they fail: the list gets what will tell, on the device.

    A number of each that is not 0: the scores held NaN, or fewer lived than were to be kept.
    """
    token = _collected.set(collected := [])
    try:
        yield collected
    finally:
        _collected.reset(token)


def guarded_floor(x: float) -> int:
    """``floor(x)``, safe against binary fractions: 0.7 * 10 is 7.

    >>> guarded_floor(0.29 * 100)
    29
    """
    return int(np.floor(x + 1e-9))


def keep_best(score: Tensor, count: int, alive: Tensor | None = None) -> Tensor:
    """The ``count`` best-scored living entries of a flat score [n] >= 0, as bool [n].

    On the CPU by native code, a histogram of leading digits and then its one bin that matters; without it by one introselect
    (numpy's, vectorised). Both are many times faster than a sorted ``topk``. On a GPU by a histogram of all digits, in Triton;
    without it by a stable sort.

    >>> keep_best(torch.tensor([3.0, 1.0, 2.0, 2.0]), 2).tolist()
    [True, False, False, True]

    Raises:
        CampfireError: fewer than ``count`` entries live, or the scores hold NaN.
    """
    if far(score.device):
        return _keep_best_there(score, count, alive)
    if (best := masks.keep_best(score, count, alive)) is not None:
        return best
    living = score.numel() if alive is None else int(alive.count_nonzero())
    if count >= living:
        if count > living:
            raise CampfireError(f"cannot keep {count} of {living} living entries; masks never revive")
        return torch.ones_like(score, dtype=torch.bool) if alive is None else alive.clone()
    if count == 0:
        return torch.zeros_like(score, dtype=torch.bool)
    score = score if score.dtype in (torch.float32, torch.float64) else score.float()
    keep = _keep_best_cpu(score.detach().numpy(), count, None if alive is None else alive.numpy())
    return torch.from_numpy(keep)


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
        raise CampfireError(NAN)
    keep[last[last.size - missing :]] = True
    return keep


def keep_best_runs(parts: Sequence[Part]) -> list[Tensor] | None:
    """`keep_best` in many weights on one GPU at once, by the largest magnitude in each run; None where Triton cannot."""
    if (found := gpu.select(parts)) is None:
        return None
    _look_at(found[1], lambda: REFUSED)
    return found[0]


def _keep_best_there(score: Tensor, count: int, alive: Tensor | None) -> Tensor:
    keep, refused = gpu.keep_best(score, count, alive) or _keep_best(score, count, alive)

    def reason() -> str:
        living = score.numel() if alive is None else int(alive.count_nonzero())
        return NAN if count <= living else f"cannot keep {count} of {living} living entries; masks never revive"

    _look_at(refused, reason)
    return keep


def _look_at(refused: Tensor, reason: Callable[[], str]) -> None:
    if (collected := _collected.get()) is not None:
        collected.append(refused)
    elif bool(refused.any()):
        raise CampfireError(reason())


def _keep_best(score: Tensor, count: int, alive: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same on any device, without waiting for it; and whether it is an error, int32 [1]."""
    alive = torch.ones_like(score, dtype=torch.bool) if alive is None else alive
    if not 0 < count <= score.numel():
        return (alive.clone() if count else torch.zeros_like(alive)), alive.new_full(
            (1,), count != 0, dtype=torch.int32
        )
    living = alive.sum()
    cut = score.masked_fill(~alive, -torch.inf).sort().values[score.numel() - count]
    above, tied = (score > cut) & alive, (score == cut) & alive
    missing = count - above.sum()
    best = above | (tied & (tied.flip(0).cumsum(0).flip(0) <= missing))
    refused = (living < count) | ((living > count) & (missing > tied.sum()))
    return torch.where(living <= count, alive, best), refused.to(torch.int32)[None]


def row_bests(score: Tensor, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Of every row of [n, t] the best living score, 0 where none lives, and how many live, int64: [n] each.

    >>> row_bests(torch.tensor([[1.0, 3.0], [2.0, 2.0]]), torch.tensor([[True, False], [False, False]]))
    (tensor([1., 0.]), tensor([1, 0]))
    """
    found = masks.row_bests(score, alive)
    return (score.masked_fill(~alive, 0).amax(1), alive.sum(1)) if found is None else found


def ranks(score: Tensor) -> Tensor:
    """The rank of every entry in its row of [n, t], 0 for the best, as uint8 [t, n] (transposed: t is small); int32 of more than 256.

    >>> ranks(torch.tensor([[5.0, 7.0, 5.0]])).flatten().tolist()
    [2, 0, 1]
    """
    if (native := gpu.ranks(score)) is not None or (native := masks.ranks(score)) is not None:
        return native
    n, t = score.shape
    counts = t <= SHORT and (n >= MANY * t or far(score.device) or bool(score.isnan().any()))
    return _ranks_by_counting(score) if counts else _ranks_by_sorting(score)


def _ranks_by_sorting(score: Tensor) -> Tensor:
    """Of scores without NaN, which has no place in an order."""
    dtype = torch.uint8 if score.shape[1] <= 256 else torch.int32
    order = score.argsort(dim=1, stable=True)  # on a tie the later entry wins
    falling = torch.arange(score.shape[1] - 1, -1, -1, dtype=dtype, device=score.device)
    rank = torch.empty(score.shape, dtype=dtype, device=score.device)
    return rank.scatter_(1, order, falling.expand_as(rank)).t().contiguous()


def _ranks_by_counting(score: Tensor) -> Tensor:
    """Who beats whom: t (t - 1) / 2 vectorised comparisons, of many short rows several times faster than sorting each."""
    planes = score.t().contiguous()
    rank = torch.zeros(planes.shape, dtype=torch.uint8, device=score.device)
    for i in range(len(planes)):
        for j in range(i + 1, len(planes)):
            lost = planes[i] > planes[j]  # on a tie the later entry wins
            rank[j] += lost
            rank[i] += ~lost
    return rank


def keep_best_rows(score: Tensor, count: int, alive: Tensor | None = None) -> Tensor:
    """The ``count`` best-scored entries of every row of [n, t], as bool [n, t]; of the living ones at most.

    >>> keep_best_rows(torch.tensor([[1.0, 2.0, 3.0], [3.0, 3.0, 0.0]]), 1).int().tolist()
    [[0, 0, 1], [0, 1, 0]]
    """
    for how in (gpu, masks):
        if (best := how.keep_best_rows(score, count, alive)) is not None:
            return best
    if alive is not None:
        score = score.masked_fill(~alive, -1.0)
    keep = (ranks(score) < count).t()
    return (keep if alive is None else keep & alive).contiguous()
