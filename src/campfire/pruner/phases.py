"""Phases: several (rules, schedule) one after another on the same model."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from campfire.errors import UsageError
from campfire.pruner.rules import Rules
from campfire.schedules import Era, Schedule
from campfire.structures import Structure
from campfire.structures.base import Plan


@dataclass(frozen=True)
class Phase:
    """Which layers get which structure, and when."""

    rules: Rules
    schedule: Schedule


@dataclass(eq=False)
class Stage:
    """A phase bound to a model: what was resolved, and how far it has come."""

    schedule: Schedule
    structures: dict[str, Structure]
    dense: dict[str, str]  # the reason of every layer left out
    goals: dict[str, float] = field(default_factory=dict)  # final sparsity by layer, decided at the first update
    plans: dict[str, Plan] = field(default_factory=dict)
    applied: float | None = None
    updates: int = 0

    def target_of(self, layer: str, target: float) -> float:
        """The layer's sparsity when the schedule stands at ``target``."""
        final = self.schedule.target
        return self.goals[layer] if target >= final else self.goals[layer] * target / final


def inter_epoch(start: float, length: float, target: float, share: float = 0.5, power: float = 3.0) -> list[Phase]:
    """Inter-epoch pruning: first an era of `ck`, then an era of `window` on the kernels that live.

    The CK era keeps (1 - target)^share of each layer and the window era thins it to 1 - target. Both eras together last
    ``length`` epochs from ``start``. Source: Campfire (Gamboa et al. 2020), the alternative to combined; the share is ours.

    >>> [str(p.rules) for p in inter_epoch(10, 10, 0.7)]
    ['ck', 'window:mode=mixed,dead_kernels=True']
    >>> [round(p.schedule.target, 3) for p in inter_epoch(10, 10, 0.7)]
    [0.452, 0.7]

    Raises:
        UsageError: no room for two eras, or a share outside (0, 1).
    """
    if length < 3:
        raise UsageError(f"two eras need 3 epochs or more; got {length}")
    if not 0 < share < 1:
        raise UsageError(f"share is the part that kernels carry, in (0, 1); got {share}")
    first = (length - 1) // 2
    kernels = 1 - (1 - target) ** share
    window = "window:mode=mixed,dead_kernels=True"
    return [
        Phase("ck", Era(start, first, kernels, power=power)),
        Phase(window, Era(start + first + 1, length - first - 1, target, initial=kernels, power=power)),
    ]


def check_order(phases: Sequence[Phase]) -> None:
    """Raise `UsageError` where a phase starts before the one in front of it has ended."""
    if not phases:
        raise UsageError("a pruner needs one phase or more")
    for before, after in itertools.pairwise(phases):
        if after.schedule.start <= before.schedule.end:
            raise UsageError(
                f"a phase starts at epoch {after.schedule.start}, and the one before it ends at {before.schedule.end}; "
                "phases follow each other"
            )
