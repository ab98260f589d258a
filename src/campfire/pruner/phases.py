"""Phases: several (rules, schedule) one after another on the same model."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from campfire.errors import DoesNotFit, UsageError
from campfire.mask import Mask
from campfire.pruner.rules import Refused, Rules, Target, resolve
from campfire.schedules import Era, Schedule
from campfire.structures import Structure
from campfire.structures.base import Plan, Shape


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

    def done(self, epoch: float) -> bool:
        """Whether the era is over and its target was applied: the phase changes nothing any more."""
        return self.schedule.over(epoch) and self.applied == self.schedule.target


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


def phases_of(rules: Rules | Sequence[Phase], schedule: Schedule | None) -> list[Phase]:
    """One phase, or the given ones; raise `UsageError` where they do not follow each other."""
    if isinstance(rules, Sequence) and not isinstance(rules, str):
        if rules and not any(isinstance(p, Phase) for p in rules):
            raise UsageError(f"rules for some layers are a mapping, such as {{'layer1.*': 'ck'}}; got {rules!r:.60}")
        if schedule is not None:
            raise UsageError("a list of phases carries its own schedules; leave schedule out")
        phases = list(rules)
    else:
        phases = [Phase(rules, _wanted(schedule))]
    if not phases or not all(isinstance(p, Phase) for p in phases):
        raise UsageError(f"a list of rules is a list of one Phase or more; got {rules!r}")
    for before, after in itertools.pairwise(phases):
        if after.schedule.start <= before.schedule.end:
            raise UsageError(
                f"a phase starts at epoch {after.schedule.start:g}, and the one before it ends at "
                f"{before.schedule.end:g}; phases follow each other"
            )
    return phases


def _wanted(schedule: Schedule | None) -> Schedule:
    if not isinstance(schedule, Schedule):
        raise UsageError(
            f"a pruner needs a schedule, for instance Era(start=30, length=20, target=0.7); got {schedule!r}"
        )
    return schedule


def bind(phases: Sequence[Phase], found: Sequence[Target], refused: Sequence[Refused]) -> list[Stage]:
    """The phases on the layers of a model.

    Raises:
        UsageError: a rule matches nothing.
        DoesNotFit: a phase cannot go on from the masks that an earlier one leaves.
    """
    stages = [Stage(p.schedule, *resolve(found, p.rules, refused)) for p in phases]
    shapes = {t.name: t.shape for t in found}
    tried = set()
    for name in shapes:
        on_it = [s for s in stages if name in s.structures]
        for before, after in itertools.pairwise(on_it):
            trial = (before.structures[name], before.schedule.target, after.structures[name], shapes[name])
            if trial not in tried and (reasons := _why_not_after(*trial, after.schedule.target)):
                first, then = str(trial[0]), str(trial[2])
                raise DoesNotFit(f"a phase of {then!r}", f"layer {name!r} after a phase of {first!r}", reasons)
            tried.add(trial)
    return stages


def _why_not_after(first: Structure, target: float, then: Structure, shape: Shape, goal: float) -> list[str]:
    """Whether a mask of one structure is a legal start for the next, tried on random scores."""
    if first == then:
        return []
    score = torch.rand(shape, generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    alive = torch.ones(shape, dtype=torch.bool, device="cpu")
    keep = first.project(score, first.count(shape, target), first.plan(score, target), alive)
    return then.why_invalid(Mask(keep, then.plan(score * keep, goal)))
