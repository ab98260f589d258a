"""PruneTrain: a lasso on channels, and their removal now and then."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import view4
from campfire.methods.base import Host, Method, Shape, Stage
from campfire.methods.l1_filter import why_not_filters
from campfire.schedules import OneShot, Schedule


@dataclass(frozen=True)
class PruneTrain(Method):
    """A group lasso presses whole channels to zero, and now and then what is near zero goes.

        loss + lam sum over layers of (sum over c of ||W[:, c]|| + sum over k of ||W[k]||)
        lam = rho L0 / ((1 - rho) P0), L0 and P0 the loss and the lasso of the first batch

    ``rounds`` times from the schedule's start to its end the filters with max |w| below ``threshold`` go, as many as the
    schedule's target at most; at its end, with ``exact``, the smallest others too, so that the target is met. The loop adds
    ``pruner.penalty()`` to the loss, after ``pruner.batch(loss)``, which is not needed where ``lam`` is given.
    `campfire.eliminate_` takes the inputs away that dead filters leave constant.
    When: what remains must be a smaller dense network, and its training should become cheaper on the way.
    Source: Lym et al. 2019, PruneTrain.
    """

    name = "prunetrain"
    rho: float = 0.2
    threshold: float = 1e-4
    rounds: int = 18
    lam: float = 0.0
    exact: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.rho < 1 or self.threshold < 0 or self.rounds < 1 or self.lam < 0:
            raise UsageError(
                "rho is in (0, 1), threshold and lam are >= 0, rounds are 1 or more; "
                f"got {self.rho}, {self.threshold}, {self.lam} and {self.rounds}"
            )

    def why_not(self, schedule: Schedule) -> list[str]:
        if isinstance(schedule, OneShot) or schedule.end <= schedule.start:
            return [
                "it removes filters now and then from a schedule's start to its end, and this one has no time for it"
            ]
        return []

    def why_not_on(self, stages: Sequence[Stage]) -> list[str]:
        several = [] if len(stages) == 1 else [f"it has one lasso, and there are {len(stages)} phases"]
        return several + why_not_filters(stages)

    def batch(self, pruner: Host, loss: Tensor, inputs: tuple[Any, ...]) -> None:
        if not self.lam and "lam" not in self.memory:
            (first,) = pruner.average([loss.detach().float().reshape(1)])
            lasso = _lasso(pruner.weights(pruner.stages[0]).values()).detach()
            self.memory["lam"] = float(self.rho * first / ((1 - self.rho) * lasso))

    def penalty(self, pruner: Host) -> Tensor | float:
        (stage,) = pruner.stages
        if stage.schedule.over(pruner.epoch) and stage.applied is not None:
            return 0.0
        lam = self.lam or self.memory.get("lam")
        if lam is None:
            raise UsageError(
                "prunetrain weighs its lasso by the first loss, and has seen none: call pruner.batch(loss) before "
                "pruner.penalty(), or give its weight, method='prunetrain:lam=1e-4'"
            )
        return lam * _lasso(pruner.weights(stage).values())

    def after_step(self, pruner: Host, epoch: float) -> None:
        (stage,) = pruner.stages
        start, end = stage.schedule.start, stage.schedule.end
        if epoch < start or (stage.schedule.over(epoch) and stage.updates > self.rounds):
            return
        number = min(self.rounds, int((epoch - start) / (end - start) * self.rounds + 1e-9)) + (epoch >= end)
        if stage.updates < number:
            self._remove(pruner, stage, last=epoch >= end)
            stage.updates = number

    def _remove(self, pruner: Host, stage: Stage, last: bool) -> None:
        weights = {n: view4(w.detach()).abs().float() for n, w in pruner.weights(stage).items()}
        heights = {n: w.amax((1, 2, 3), keepdim=True) for n, w in weights.items()}
        scores = {n: h.expand_as(weights[n]) for n, h in heights.items()}
        layers = pruner.shares(stage, stage.schedule.target, scores)
        if not (last and self.exact):
            small = {n: float((h < self.threshold).double().mean()) for n, h in heights.items()}
            layers = {n: min(small[n], most) for n, most in layers.items()}
        pruner.update(stage, stage.schedule.target if last else 0.0, layers, scores)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.memory)

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        lam = float(state.get("lam", 1.0))
        if not 0 < lam < float("inf"):
            raise ValueError(f"a weight of {lam}")
        self.memory.clear()
        if "lam" in state:
            self.memory["lam"] = lam


def _lasso(weights: Iterable[Tensor]) -> Tensor:
    """The sum of the L2 norms of all input and output channels."""
    views = [view4(w).float() for w in weights]
    return torch.stack(
        [w.flatten(1).norm(dim=1).sum() + w.transpose(0, 1).flatten(1).norm(dim=1).sum() for w in views]
    ).sum()
