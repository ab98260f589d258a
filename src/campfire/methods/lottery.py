"""Lottery tickets: train, prune, rewind, train again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from campfire.errors import UsageError
from campfire.methods.base import Host, Method, Shape, Stage
from campfire.methods.iterative import due_updates, epochs_of, why_not_by_list
from campfire.schedules import Schedule


@dataclass(frozen=True)
class Lottery(Method):
    """At each epoch of a `Steps` schedule the smallest weights go, and all others return to what they were at epoch ``rewind``.

        w <- mask * w(rewind), and so do biases, norms and their running statistics; optimizers forget

    ``rewind=0`` is the state of the first step (statistics as its forward pass left them); large networks need later ones. The
    learning rate is rewound too: each round has the whole schedule, in `campfire.train`; a loop of one's own asks
    ``pruner.lr_time(epochs)``.
    When: to know whether a sparse network could have been trained from the start. It costs a training a round.
    Source: Frankle and Carbin 2019, The Lottery Ticket Hypothesis; Frankle et al. 2020, Linear Mode Connectivity (rewinding).
    """

    name = "lottery"
    rewind: float = 0.0

    def __post_init__(self) -> None:
        if self.rewind < 0:
            raise UsageError(f"rewind is the epoch to return to, 0 or more; got {self.rewind}")

    def why_not(self, schedule: Schedule) -> list[str]:
        reasons = why_not_by_list(schedule)
        if schedule.start <= self.rewind:
            reasons.append(f"it rewinds to epoch {self.rewind:g}, and the schedule prunes at epoch {schedule.start:g}")
        return reasons

    def why_not_on(self, stages: Sequence[Stage]) -> list[str]:
        return (
            [] if len(stages) == 1 else [f"it trains one schedule again and again, and there are {len(stages)} phases"]
        )

    @torch.no_grad()
    def before_step(self, pruner: Host, epoch: float) -> None:
        if "origin" not in self.memory and epoch + 1e-9 >= self.rewind:
            self.memory["origin"] = {n: x.clone() for n, x in _tensors(pruner.model)}

    @torch.no_grad()
    def after_step(self, pruner: Host, epoch: float) -> None:
        (stage,) = pruner.stages
        due = due_updates(stage.schedule, epoch)
        if stage.updates < due:
            pruner.update(stage, stage.schedule(epoch))
            stage.updates = due
            self._return(pruner, stage)

    def _return(self, pruner: Host, stage: Stage) -> None:
        for name, tensor in _tensors(pruner.model):
            tensor.copy_(self.memory["origin"][name])
        for name, weight in pruner.weights(stage).items():
            weight.mul_(pruner.keeps(stage)[name].view_as(weight))
        pruner.forget()

    def lr_time(self, stages: Sequence[Stage], epoch: float, epochs: float) -> tuple[float, float]:
        rounds = [0.0, *epochs_of(stages[0].schedule), epochs]
        number = max(i for i, start in enumerate(rounds[:-1]) if start <= epoch + 1e-9)
        again = self.rewind if number else 0.0
        return again + epoch - rounds[number], again + rounds[number + 1] - rounds[number]

    def state_dict(self) -> dict[str, Any]:
        return {"origin": dict(self.memory["origin"])} if "origin" in self.memory else {}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        origin = state.get("origin", {})
        if not all(isinstance(x, Tensor) for x in origin.values()):
            raise TypeError("the state to rewind to is not made of tensors")
        self.memory.clear()
        if origin:
            self.memory["origin"] = {n: x.clone() for n, x in origin.items()}


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """What a model's state holds, but for what its modules' ``get_extra_state`` adds that is no tensor."""
    return [(name, x) for name, x in model.state_dict().items() if isinstance(x, Tensor)]
