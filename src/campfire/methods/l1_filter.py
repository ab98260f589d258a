"""Li et al.'s filter pruning by L1 norms."""

from collections.abc import Sequence
from dataclasses import dataclass

from campfire.methods.base import Host, Method, Stage
from campfire.methods.iterative import due_updates, why_not_by_list
from campfire.methods.regrow import magnitudes
from campfire.schedules import Schedule


@dataclass(frozen=True)
class L1Filter(Method):
    """The filters with the smallest L1 norms go, once or by a list of epochs, and the rest is retrained.

        score of filter k = sum over c, r, s of |W[k, c, r, s]|

    Whatever the pruner's score is. Layers are ranked independently; `campfire.eliminate_` then takes the inputs away that
    dead filters leave constant.
    When: what remains must be a smaller dense network.
    Source: Li et al. 2017, Pruning Filters for Efficient ConvNets.
    """

    name = "l1-filter"

    def why_not(self, schedule: Schedule) -> list[str]:
        return why_not_by_list(schedule)

    def why_not_on(self, stages: Sequence[Stage]) -> list[str]:
        return why_not_filters(stages)

    def after_step(self, pruner: Host, epoch: float) -> None:
        for stage in pruner.stages:
            due = due_updates(stage.schedule, epoch)
            if stage.updates < due:
                pruner.update(stage, stage.schedule(epoch), scores=magnitudes(pruner, stage))
                stage.updates = due


def why_not_filters(stages: Sequence[Stage]) -> list[str]:
    """Reasons why a method that removes filters cannot work with these structures; [] when it can."""
    others = {str(s): n for stage in reversed(stages) for n, s in stage.structures.items() if s.name != "filter"}
    return [
        f"it removes whole filters, and layer {name!r} has structure {spec!r}; use structure 'filter'"
        for spec, name in others.items()
    ]
