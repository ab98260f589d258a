"""Iterative: train, prune, retrain, prune more."""

from dataclasses import dataclass

from torch import Tensor

from campfire.errors import UsageError
from campfire.methods.base import Host, Method
from campfire.schedules import OneShot, Schedule, Steps


@dataclass(frozen=True)
class Iterative(Method):
    """At each epoch of a `Steps` schedule the masks tighten once; between them the survivors are retrained.

    By default to the schedule's list of sparsities. With ``threshold`` above 0, by the literal loop of Mao et al.'s
    slides: a unit dies when its mean |w| is not above ``threshold + i step`` root mean squares of its layer's living
    units, at the i-th pruning (the slides lower the threshold, which would prune nothing; here it rises). The
    schedule then gives the epochs, and its sparsities cap what may go.

    Source: Han et al. 2015; Mao et al. 2017.
    """

    name = "iterative"
    threshold: float = 0.0
    step: float = 0.25

    def __post_init__(self) -> None:
        if self.threshold < 0 or self.step < 0:
            raise UsageError(f"threshold and step are >= 0; got {self.threshold} and {self.step}")

    def why_not(self, schedule: Schedule) -> list[str]:
        return why_not_by_list(schedule)

    def after_step(self, pruner: Host, epoch: float) -> None:
        for stage in pruner.stages:
            due = due_updates(stage.schedule, epoch)
            if stage.updates < due:
                target = stage.schedule(epoch)
                layers = self._by_threshold(pruner.saliencies(stage), due - 1, target) if self.threshold else None
                pruner.update(stage, target, layers)
                stage.updates = due  # a jump over several epochs of the list is one pruning

    def _by_threshold(self, saliencies: dict[str, Tensor], rounds: int, cap: float) -> dict[str, float]:
        sparsity = {}
        for name, saliency in saliencies.items():
            cut = (self.threshold + rounds * self.step) * float(saliency[saliency > 0].square().mean().sqrt())
            sparsity[name] = min(cap, float((saliency <= cut).double().mean()))
        return sparsity


def epochs_of(schedule: Schedule) -> list[float]:
    """The epochs at which a schedule by list prunes."""
    return [e for e, _ in schedule.at] if isinstance(schedule, Steps) else [schedule.start]


def due_updates(schedule: Schedule, epoch: float) -> int:
    """How many entries of the list have come by ``epoch``."""
    return sum(at <= epoch + 1e-9 for at in epochs_of(schedule))


def why_not_by_list(schedule: Schedule) -> list[str]:
    """Reasons why a schedule has no list of epochs to prune at; [] when it has."""
    if isinstance(schedule, (Steps, OneShot)):
        return []
    return [f"it prunes at the epochs of a Steps schedule, and {type(schedule).__name__} has none"]
