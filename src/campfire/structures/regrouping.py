"""Regrouping: an order of the outputs in which neighbours need the same inputs, so that blocks of them keep what matters.

All sums are of whole numbers in float64, so they are exact, and the order is the same on every machine and with any
number of threads. Rows are outputs; a unit is an input, or a tap of one.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Keep = Callable[
    [Tensor], Tensor
]  # what each group of rows scores at every unit [G, U] -> the units that live in it, 0 or 1
DIGITS = 2**20  # a score is one of so many whole numbers
POWERS, STEPS = 30, 2**12  # of the direction that rows differ in: rounds, and whole numbers on each side of 0
ROUNDS = 20  # most turns of choosing blocks and moving rows; networks seen so far need 3 to 12


def whole(score: Tensor) -> Tensor:
    """A score >= 0 as whole numbers in float64, on the CPU."""
    score = score.detach().cpu().double()
    return (score * (DIGITS / score.max().clamp_min(1e-300))).round_()


def by_likeness(mask: Tensor, rows: int) -> Tensor:
    """Similarity clustering: each group is a row and those most like it (by cosine) among the rest.

    Args:
        mask: bool [K, C], K a multiple of ``rows``: which kernels matter.

    >>> by_likeness(torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]).bool(), 2).tolist()
    [0, 2, 1, 3]
    """
    living = mask.double()
    size = living.sum(1).clamp_min(1).sqrt()
    rest, order = torch.arange(len(living)), []
    while len(rest):
        like = (living[rest] @ living[rest[0]]) / size[rest]
        like[0] = torch.inf  # a row belongs to its own group, even an empty one
        closest = like.argsort(descending=True, stable=True)
        order.append(rest[closest[:rows]])
        rest = rest[closest[rows:]].sort().values
    return torch.cat(order)


def by_cut(mask: Tensor, rows: int) -> Tensor:
    """Recursive bisection of the hypergraph whose vertices are rows and whose nets are inputs.

    A net is cut where both halves need it; at the densities of pruned layers nearly all are, so what counts is how often:
    two rows that share an input and are parted. A half starts on one side of the strongest direction in which rows differ,
    then rows are exchanged, the best pair first, until no exchange helps (after Kernighan and Lin).

    Args:
        mask: bool [K, C], K a multiple of ``rows``: which kernels matter.

    >>> by_cut(torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]).bool(), 2).tolist()
    [1, 3, 0, 2]
    """
    parts = [torch.arange(len(mask))]
    shared = mask.double() @ mask.double().T
    while any(len(part) > rows for part in parts):
        parts = [half for part in parts for half in (_halves(shared, part, rows) if len(part) > rows else (part,))]
    return torch.cat(parts)


def _halves(shared: Tensor, part: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """A part in two, each of whole groups."""
    like = shared[part][:, part]
    first, order = len(part) // rows // 2 * rows, _direction(like).argsort(stable=True)
    left, right, own = order[:first].clone(), order[first:].clone(), like.diagonal()
    drawn = like[:, left].sum(1) - like[:, right].sum(1)  # how much more a row shares with the left
    for _ in range(first):
        leave, enter = own[left] - drawn[left], own[right] + drawn[right]
        i, j = int(leave.argmax()), int(enter.argmax())
        a, b = left[i].clone(), right[j].clone()
        if float(leave[i] + enter[j] - 2 * like[a, b]) <= 0:
            break
        drawn += 2 * (like[b] - like[a])
        left[i], right[j] = b, a
    return part[left].sort().values, part[right].sort().values


def _direction(like: Tensor) -> Tensor:
    """Where each row lies along the strongest direction of their differences, as whole numbers (by powers)."""
    centred = like * len(like) - like.sum(1, keepdim=True)
    x = torch.cos(torch.arange(len(like), dtype=torch.float64))
    for _ in range(POWERS):
        x = (x * (STEPS / x.abs().max().clamp_min(1e-300))).round()
        x = centred @ x
    return x


def climb(score: Tensor, rows: int, keep: Keep, order: Tensor) -> Tensor:
    """Exchange rows between groups as long as the blocks then keep more: choose blocks, move rows, and again.

    Both steps can only gain: the best blocks for these groups, then better groups for these blocks.

    Args:
        score: `whole` numbers [K, U]; K is a multiple of ``rows``.
        order: the one to start from, [K].
    """
    most = -1.0
    for _ in range(ROUNDS):
        living = keep(score[order].unflatten(0, (-1, rows)).sum(1))
        moved = _exchange(score @ living.T, order.view(-1, rows))
        kept = float((score[moved.flatten()].unflatten(0, (-1, rows)).sum(1) * living).sum())
        if kept <= most:
            break
        most, order = kept, moved.flatten()
    return order


def _exchange(gain: Tensor, groups: Tensor) -> Tensor:
    """Exchange rows between every two groups while that gains; ``gain`` [K, G] is what a row is worth in a group."""
    groups, pairings = groups.clone(), _pairings(len(groups))
    for _ in range(4):
        moved = False
        for one, other in pairings:
            here, there = groups[one], groups[other]  # [pairs, rows]
            go = gain[here, other[:, None]] - gain[here, one[:, None]]
            come = gain[there, one[:, None]] - gain[there, other[:, None]]
            go, i = go.sort(dim=1, descending=True, stable=True)
            come, j = come.sort(dim=1, descending=True, stable=True)
            here, there, better = here.gather(1, i), there.gather(1, j), go + come > 0
            groups[one], groups[other] = torch.where(better, there, here), torch.where(better, here, there)
            moved |= bool(better.any())
        if not moved:
            break
    return groups


def _pairings(groups: int) -> list[tuple[Tensor, Tensor]]:
    """Every two groups meet once, in rounds in which each meets one other at most (a round-robin tournament)."""
    ring = list(range(groups + groups % 2))
    rounds = []
    for _ in range(len(ring) - 1):
        pairs = zip(ring[: len(ring) // 2], reversed(ring), strict=False)
        found = torch.tensor([pair for pair in pairs if max(pair) < groups])
        if len(found):
            rounds.append((found[:, 0], found[:, 1]))
        ring = [ring[0], ring[-1], *ring[1:-1]]
    return rounds


def runs(score: Tensor, width: int, thin: int) -> Tensor:
    """The inputs of each group of rows in an order in which every ``width`` of them make a block, [G, C].

    Blocks of all taps take inputs of similar weight. Where a block keeps ``thin`` of its taps, the heaviest input left
    takes along those that keep most in its own best taps.

    Args:
        score: [G, C, taps].

    >>> runs(torch.tensor([[[3.0], [1.0], [4.0], [2.0]]]), 2, 1).tolist()
    [[2, 0, 3, 1]]
    """
    best = score.topk(thin, dim=2)
    value = best.values.sum(2)
    if score.shape[2] == thin or width == 1:
        return value.argsort(dim=1, descending=True, stable=True)
    book = torch.zeros_like(score).scatter_(2, best.indices, 1.0)  # the best taps of each input, as 0 and 1
    found, value = [], value.clone()
    for _ in range(score.shape[1] // width):
        seed = value.argmax(1)
        under = (score * book[torch.arange(len(seed)), seed][:, None]).sum(2)
        under = under.masked_fill(value < 0, -1.0).scatter_(1, seed[:, None], torch.inf)
        chosen = under.argsort(dim=1, descending=True, stable=True)[:, :width]
        value.scatter_(1, chosen, -1.0)
        found.append(chosen)
    left = value.argsort(dim=1, descending=True, stable=True)[:, : score.shape[1] % width]
    return torch.cat([*found, left], 1)
