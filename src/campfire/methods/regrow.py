"""What the methods have in common that let weights die and others grow, at a budget that stays exact."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import pack_bits, unpack_bits, view4
from campfire.methods.base import Host, Method, Shape, Stage
from campfire.schedules import OneShot, Schedule
from campfire.scores import Random


@dataclass(frozen=True)
class Regrow(Method):
    """At every update a share of what lives dies, and as much grows elsewhere.

    The first masks are made by the pruner's score at the schedule's start (``score="random"``: drawn, as the papers have
    it). Then, until its end, ``updates`` times (or every ``every`` steps of the pruner, where that is above 1) the survivors
    are chosen by |w| of their units, and the structure is laid anew: survivors first, then the best by `growth`.
    Grown weights start at 0. With ``itop`` weights that never lived grow first.
    """

    fraction: float = 0.3
    updates: int = 100
    itop: bool = False
    regroup: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.fraction < 1 or self.updates < 1:
            raise UsageError(
                f"fraction is the share that dies at an update, in [0, 1), and updates are 1 or more; "
                f"got {self.fraction} and {self.updates}"
            )

    def why_not(self, schedule: Schedule) -> list[str]:
        if isinstance(schedule, OneShot) or schedule.end <= schedule.start:
            return [
                "weights die and grow from a schedule's start to its end, and this one has no time between them; "
                "use Era(start, length, target, initial=target, by='step')"
            ]
        return []

    def why_not_on(self, stages: Sequence[Stage]) -> list[str]:
        if len(stages) == 1:
            return []
        return [f"it revives weights, and a phase after the first one of {len(stages)} needs the masks before it"]

    @abstractmethod
    def growth(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        """How much each weight deserves to grow, >= 0, [K, C, R, S]."""

    def dying(self, stage: Stage, epoch: float) -> float:
        """The share of living weights that dies at an update."""
        return self.fraction

    def due(self, pruner: Host, stage: Stage, epoch: float) -> int:
        """The number of the update that is to be made now; 0 for none."""
        schedule = stage.schedule
        if epoch < schedule.start or (schedule.over(epoch) and stage.applied == schedule.target):
            return 0
        if stage.applied is None or (schedule(epoch) >= schedule.target > stage.applied):
            return stage.updates + 1
        if pruner.every > 1:
            return 0 if pruner.steps % pruner.every else stage.updates + 1
        number = 1 + int(self.passed(stage, epoch) * self.updates + 1e-9)
        return number if number > stage.updates else 0

    def passed(self, stage: Stage, epoch: float) -> float:
        """The share of the schedule's time that is over, in [0, 1]."""
        schedule = stage.schedule
        return min(1.0, max(0.0, (epoch - schedule.start) / (schedule.end - schedule.start)))

    @torch.no_grad()
    def before_step(self, pruner: Host, epoch: float) -> None:
        for stage in pruner.stages:
            if number := self.due(pruner, stage, epoch):
                if stage.applied is None:
                    pruner.update(stage, stage.schedule(epoch))
                else:
                    self.change(pruner, stage, epoch)
                stage.updates = number
                self._explore(pruner, stage)

    def after_step(self, pruner: Host, epoch: float) -> None:
        return

    def change(self, pruner: Host, stage: Stage, epoch: float) -> None:
        """One update after the first."""
        target, share = stage.schedule(epoch), self.dying(stage, epoch)
        if share <= 0 and target == stage.applied:
            return
        left = {}
        for name, keep in pruner.keeps(stage).items():
            living = min(pruner.budget(stage, name, stage.target_of(name, target)), int(keep.count_nonzero()))
            left[name] = living - round(share * living)
        survivors = pruner.survivors(stage, magnitudes(pruner, stage), left)
        pruner.regrow(stage, target, survivors, self.explored_last(pruner, stage), regroup=self.regroup)

    # --- in-time over-parameterisation ------------------------------------------------------------------------------

    def explored_last(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        """The growth; with ``itop``, above all of it where a weight never lived."""
        growth = self.growth(pruner, stage)
        if not self.itop:
            return growth
        for name, known in self.memory.get("explored", {}).items():
            growth[name] = growth[name] / growth[name].max().clamp(min=1e-30) + ~known.to(growth[name].device)
        return growth

    def _explore(self, pruner: Host, stage: Stage) -> None:
        if self.itop:
            known = self.memory.setdefault("explored", {})
            for name, keep in pruner.keeps(stage).items():
                known[name] = known[name].to(keep.device) | keep if name in known else keep.clone()

    def explored(self) -> float:
        """ITOP's R_s: the share of all weights that have lived at some time; 0 without ``itop``."""
        known = self.memory.get("explored", {}).values()
        return sum(int(x.count_nonzero()) for x in known) / max(1, sum(x.numel() for x in known))

    def state_dict(self) -> dict[str, Any]:
        return {"explored": {n: pack_bits(x) for n, x in self.memory.get("explored", {}).items()}}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        known = {name: unpack_bits(bits, shapes[name]) for name, bits in state["explored"].items()}
        self.memory["explored"] = known


def magnitudes(pruner: Host, stage: Stage) -> dict[str, Tensor]:
    """|w| for each layer of a phase, [K, C, R, S]."""
    return {n: view4(w.detach()).abs().float() for n, w in pruner.weights(stage).items()}


def drawn(pruner: Host, stage: Stage) -> dict[str, Tensor]:
    """Noise that depends on the seed, the layer, and the number of updates alone: equal on all ranks and after a resume."""
    return {n: Random(pruner.seed, f"{n}/{stage.updates}")(view4(w)) for n, w in pruner.weights(stage).items()}


def elsewhere(
    growth: Mapping[str, Tensor], keeps: Mapping[str, Tensor], survivors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The growth, but last where a weight has just died."""
    return {n: x * ~(keeps[n] & ~survivors[n]) for n, x in growth.items()}
