"""Zhu and Gupta's gradual pruning: by steps, not by epochs."""

from dataclasses import dataclass

from campfire.errors import UsageError
from campfire.methods.base import Host, Method
from campfire.schedules import Era, Schedule


@dataclass(frozen=True)
class ZhuGupta(Method):
    """The masks tighten along a cubic schedule of *steps*, ``updates`` times, while training goes on.

        s = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3

    `Gradual` is the same curve by whole epochs (Campfire), this is an `Era` with ``by="step"``. Where the pruner's ``every`` is
    above 1, it is dt.
    When: the usual unstructured baseline.
    Source: Zhu and Gupta 2017, To prune, or not to prune.
    """

    name = "zhu-gupta"
    updates: int = 100

    def __post_init__(self) -> None:
        if self.updates < 1:
            raise UsageError(f"updates are 1 or more; got {self.updates}")

    def why_not(self, schedule: Schedule) -> list[str]:
        if isinstance(schedule, Era) and schedule.by == "step":
            return []
        return ["it follows steps: use Era(start, length, target, by='step')"]

    def after_step(self, pruner: Host, epoch: float) -> None:
        for stage in pruner.stages:
            schedule = stage.schedule
            target = schedule(epoch)
            if epoch < schedule.start or (stage.applied is not None and target <= stage.applied):
                continue
            number = 1 + int((epoch - schedule.start) / (schedule.end - schedule.start) * self.updates + 1e-9)
            due = pruner.steps % pruner.every == 0 if pruner.every > 1 else number > stage.updates
            if due or target >= schedule.target:
                pruner.update(stage, target)
                stage.updates = number
