"""Campfire's combined pruning: windows thinned to a share of the target, whole kernels for the rest."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import Mask
from campfire.selection import guarded_floor, keep_best, row_bests
from campfire.structures.base import Plan, Shape, Structure
from campfire.structures.granularity import CK
from campfire.structures.window import Window, is_windowed, level_reasons, rows_of, thin

_CK, _WINDOW = CK(), Window()


@dataclass(frozen=True)
class Combined(Structure):
    """Campfire's Combined: windows carry ``share`` of the sparsity, then CK removes kernels until the layer holds it.

        x . x   . . .   . x .
        . x .   . . .   x . x        z = floor(9 share t) zeros in a living window,
        . . .   . . .   . . .        and whole kernels until zeros = t

    Keeps: the best weights of the best kernels; by default exactly floor(t K C R S) zeros. As t rises the window step
    jumps and the share of dead kernels would fall, so at any time only as many kernels are dead as *every* later target
    needs, and the windows take the remainder with two neighbouring numbers of zeros, chosen by saliency: masks stay
    nested and exact. With ``literal=True`` the paper's other reading: windows at share t, then CK at (1 - share) t of
    the kernels (0.511 for t = 0.6). 1x1 layers and kernels above 25 taps follow `ck` at t.
    Hardware: as window and ck; fewer kernels to visit than window, fewer multiplies in each than ck.
    Source: Campfire (Gamboa et al. 2020), Algorithm 4 (share 0.8).
    """

    name = "combined"
    share: float = 0.8
    literal: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"share is the part of the sparsity that windows carry, in [0, 1]; got {self.share}")

    def zeros(self, taps: int, sparsity: float) -> int:
        """Zeros in each window at this target, floor(taps share t), so that windows alone never overshoot."""
        return guarded_floor(taps * self.share * sparsity)

    def kernel_share(self, taps: int, sparsity: float, goal: float) -> float:
        """The share of kernels dead at ``sparsity``: the least that it and every later target up to ``goal`` need.

        >>> [round(Combined().kernel_share(9, t, goal=t), 4) for t in (0.2, 0.6, 0.7, 0.8)]
        [0.1, 0.28, 0.325, 0.55]
        >>> round(Combined().kernel_share(9, 0.69, goal=0.7), 4), round(Combined().kernel_share(9, 0.69, goal=0.69), 4)
        (0.3125, 0.442)
        """

        def needed(t: float) -> float:
            return 1 - (1 - t) / (1 - self.zeros(taps, t) / taps)

        jumps = [] if self.share == 0 else [z / (taps * self.share) for z in range(1, taps)]
        return max(0.0, min(needed(t) for t in [sparsity, *(t for t in jumps if sparsity < t <= goal)]))

    def count(self, shape: Shape, sparsity: float) -> int:
        if not is_windowed(shape):
            return _CK.count(shape, sparsity)
        kernels, taps = shape[0] * shape[1], shape[2] * shape[3]
        if self.literal:
            living = kernels - guarded_floor((1 - self.share) * sparsity * kernels)
            return living * (taps - self.zeros(taps, sparsity))
        return kernels * taps - guarded_floor(sparsity * kernels * taps)

    def plan(self, score: Tensor, goal: float) -> Plan:
        return {"goal": torch.tensor(goal, dtype=torch.float64)}

    def any_mask(self, shape: Shape) -> bool:
        if not is_windowed(shape):
            return _CK.any_mask(shape)
        return shape[0] * shape[1] == 1 or (not self.literal and shape[2] * shape[3] == 2)

    def run(self, shape: Shape) -> int:
        return 0 if is_windowed(shape) else _CK.run(shape)

    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        shape = tuple(score.shape)
        if not is_windowed(shape):
            return _CK.project(score, count, plan, alive)
        kernels, taps = shape[0] * shape[1], shape[2] * shape[3]
        if self.literal:
            target = self.sparsity_of(shape, count)
            dead = guarded_floor((1 - self.share) * target * kernels)
        else:
            target = 1 - count / (kernels * taps)
            dead = guarded_floor(self.kernel_share(taps, target, float(plan["goal"])) * kernels)
        return thin(score, count, alive, _drop_kernels(score, alive, dead, count))

    def why_invalid(self, mask: Mask) -> list[str]:
        if not is_windowed(tuple(mask.keep.shape)):
            return _CK.why_invalid(mask)
        return level_reasons(mask.keep, 1 if self.literal else 2, dead_kernels=True)


def _drop_kernels(score: Tensor, alive: Tensor, dead: int, count: int) -> Tensor:
    """How many weights live in each kernel, int64 [K C], after kernels die, worst maximum first, until ``dead`` are gone; never
    so many that fewer than ``count`` weights would live (which rounding can ask for, by a kernel or two, when the era takes
    uneven steps)."""
    best, held = row_bests(rows_of(score), rows_of(alive))
    living = held > 0
    survivors = min(held.numel() - dead, int(living.count_nonzero()))
    while True:
        left = held * keep_best(best, survivors, living)
        if (missing := count - int(left.sum())) <= 0:
            return left
        survivors += -(-missing // score[0, 0].numel())  # as many as it takes at least
