"""What the methods have in common that choose all masks at once, at the first step."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from campfire.methods.base import Host, Method, Stage
from campfire.schedules import OneShot, Schedule


@dataclass(frozen=True)
class AtInit(Method):
    """Masks are chosen once, before the optimizer's first step at the epoch of a `OneShot` schedule (0: at init).

    A structure's plan (such as the row order of blocks) is made from the same scores.
    """

    def why_not(self, schedule: Schedule) -> list[str]:
        if isinstance(schedule, OneShot):
            return []
        return [f"it prunes once, by a OneShot schedule, and {type(schedule).__name__} prunes on"]

    def why_not_on(self, stages: Sequence[Stage]) -> list[str]:
        return [] if len(stages) == 1 else [f"it prunes once, and there are {len(stages)} phases"]

    def pending(self, pruner: Host, epoch: float) -> Stage | None:
        """The phase whose masks are to be chosen now, if they are."""
        (stage,) = pruner.stages
        return stage if stage.applied is None and stage.schedule(epoch) >= stage.schedule.target else None

    def before_step(self, pruner: Host, epoch: float) -> None:
        if (stage := self.pending(pruner, epoch)) is not None and (scores := self.scores(pruner, stage)) is not None:
            pruner.update(stage, stage.schedule.target, scores=scores)

    def after_step(self, pruner: Host, epoch: float) -> None:
        return

    @abstractmethod
    def scores(self, pruner: Host, stage: Stage) -> dict[str, Tensor] | None:
        """The scores >= 0 that decide, [K, C, R, S] for each layer; None where another batch must be seen."""
