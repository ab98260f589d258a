"""Campfire's window pruning, and the thinning of windows that `combined` shares."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.errors import UnknownName, UsageError
from campfire.mask import Mask
from campfire.native import masks
from campfire.selection import guarded_floor, keep_best, keep_best_rows, ranks, row_bests
from campfire.structures.base import Plan, Shape, Structure
from campfire.structures.granularity import CK

MODES = ("target", "campfire", "mixed")
_CK = CK()


def is_windowed(shape: Shape) -> bool:
    """Whether a layer's kernels are thinned: 2 to 25 taps. 1x1 and 7x7 layers follow CK instead, as in the paper."""
    return 1 < shape[2] * shape[3] <= 25


def rows_of(x: Tensor) -> Tensor:
    """[K, C, R, S] -> [K C, R S]."""
    return x.flatten(2).flatten(0, 1)


def thin(score: Tensor, count: int, alive: Tensor, held: Tensor) -> Tensor:
    """Keep ``count`` living weights so that living kernels hold one of two neighbouring numbers of weights.

    Every kernel is cut down to the same level; the kernels that may hold one weight more are those whose next weight
    scores best.

    Args:
        score: [K, C, R, S], and so ``alive``.
        held: how many weights of each kernel live, int64 [K C]; 0 for a kernel that is to die.
    """
    steps = torch.bincount(held, minlength=score[0, 0].numel() + 1).flip(0).cumsum(0).flip(0)[1:]  # kernels with >= i
    totals = [0, *steps.cumsum(0).tolist()]
    level = max(i for i, total in enumerate(totals) if total <= count)
    if level == len(totals) - 1:
        return alive & (held > 0).view(*alive.shape[:2], 1, 1)
    keep, following, place = _levelled(rows_of(score), rows_of(alive), held > 0, level)
    more = keep_best(following, count - totals[level], held > level)
    if not masks.add_places(keep, place, more):
        keep.scatter_(1, place.long()[:, None], more[:, None])
    return keep.view(score.shape)


def _levelled(score: Tensor, alive: Tensor, stays: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``level`` best of each row of [n, t] that stays; and of every row the score that comes next, and its place."""
    if (found := masks.thin_rows(score, alive, stays, level)) is not None:
        return found
    rank = ranks(score.masked_fill(~alive, -1.0)).t()
    following = score.masked_fill(rank != level, 0.0).amax(1)
    return (rank < level) & alive & stays[:, None], following, (rank == level).to(torch.uint8).argmax(1)


def level_reasons(keep: Tensor, allowed: int, dead_kernels: bool) -> list[str]:
    """Reasons why living kernels do not all hold one of ``allowed`` neighbouring numbers of weights."""
    counts = keep.sum((2, 3)).unique()
    if not dead_kernels and bool((counts == 0).any()):
        return ["some kernels are dead; in a window structure every kernel keeps a weight"]
    counts = counts[counts > 0]
    if counts.numel() and counts.max() - counts.min() >= allowed:
        wanted = "one number" if allowed == 1 else "two neighbouring numbers"
        return [f"living kernels hold {counts.tolist()} weights; {wanted} allowed"]
    return []


@dataclass(frozen=True)
class Window(Structure):
    """Campfire's Window: the same number n of survivors in every R x S kernel of the layer.

        x . .   . x .   . . x
        . x .   . . .   . x .        n = 2 of 9 in every window, the largest |w|
        . . .   . x .   . . .

    Keeps: the n largest weights of each kernel, so every multiplier gets equal work; no kernel dies. For a target t,
    ``mode`` says how many zeros z a 3x3 window gets: "target": z = ceil(9 t); "campfire": z = max(floor(9 t) + 1,
    9 - max_nonzero), which reproduces the paper's table 1; "mixed" (ours): floor and ceil windows mixed by saliency, so
    that the layer meets t exactly. z stays below 9. 1x1 layers and kernels above 25 taps follow `ck` at t.
    After an era of `ck` (inter-epoch pruning) set ``dead_kernels``: the windows of what lives are thinned.
    Hardware: ASICs and FPGAs with a fixed multiply count per window; batch-lane CPU kernels.
    Source: Campfire (Gamboa et al. 2020), Algorithm 3.
    """

    name = "window"
    mode: str = "target"
    max_nonzero: int = 2
    dead_kernels: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UnknownName("window mode", self.mode, MODES)
        if self.max_nonzero < 1:
            raise UsageError(f"a window keeps one weight or more; got max_nonzero={self.max_nonzero}")

    def zeros(self, taps: int, sparsity: float) -> int:
        """Zeros in each window of ``taps`` weights, for the modes that give every window the same.

        >>> [Window("campfire").zeros(9, t) for t in (0, 0.2, 0.4, 0.6, 0.8, 0.9)]
        [0, 7, 7, 7, 8, 8]
        """
        if sparsity <= 0:
            return 0
        if self.mode == "campfire":
            zeros = max(guarded_floor(taps * sparsity) + 1, taps - self.max_nonzero)
        else:
            zeros = math.ceil(taps * sparsity - 1e-9)
        return min(zeros, taps - 1)

    def count(self, shape: Shape, sparsity: float) -> int:
        kernels, taps = shape[0] * shape[1], shape[2] * shape[3]
        if not is_windowed(shape):
            return _CK.count(shape, sparsity)
        if self.mode == "mixed":
            return max(kernels * taps - guarded_floor(sparsity * kernels * taps), kernels)
        return kernels * (taps - self.zeros(taps, sparsity))

    def any_mask(self, shape: Shape) -> bool:
        return not is_windowed(shape) and _CK.any_mask(shape)

    def run(self, shape: Shape) -> int:
        return 0 if is_windowed(shape) else _CK.run(shape)

    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        if not is_windowed(tuple(score.shape)):
            return _CK.project(score, count, plan, alive)
        if self.mode == "mixed":
            return thin(score, count, alive, row_bests(rows_of(score), rows_of(alive))[1])
        per_kernel = count // (score.shape[0] * score.shape[1])
        return keep_best_rows(rows_of(score), per_kernel, rows_of(alive)).reshape(score.shape)

    def why_invalid(self, mask: Mask) -> list[str]:
        if not is_windowed(tuple(mask.keep.shape)):
            return _CK.why_invalid(mask)
        return level_reasons(mask.keep, 2 if self.mode == "mixed" else 1, self.dead_kernels)
