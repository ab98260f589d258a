"""RigL: the lottery is rigged by gradients."""

import math
from dataclasses import dataclass

from torch import Tensor

from campfire.methods.base import Host, Stage
from campfire.methods.regrow import Regrow


@dataclass(frozen=True)
class RigL(Regrow):
    """At every update the smallest weights of each layer die, and as many grow where the gradient is largest.

        dies: the share f(t) = fraction/2 (1 + cos(pi t / T)) of the living with the smallest |w|
        grows: where |dL/dw| is largest, the just dead included;  t from the schedule's start, T its length

    Dead weights' gradients are looked at in the steps of updates only, averaged over ranks; clipping never sees them. In a
    structure whole units die and grow, ranked as the structure ranks them; blocks are grouped anew unless ``regroup=false``.
    ``itop``: what never lived grows first.
    When: the best accuracy of sparse-to-sparse training; the paper shares the budget by ``--allocation erk``.
    Source: Evci et al. 2020, Rigging the Lottery; in-time over-parameterisation: Liu et al. 2021.
    """

    name = "rigl"

    def dying(self, stage: Stage, epoch: float) -> float:
        return self.fraction / 2 * (1 + math.cos(math.pi * self.passed(stage, epoch)))

    def wants_gradients(self, pruner: Host, epoch: float) -> bool:
        return any(self.due(pruner, s, epoch) and s.applied is not None for s in pruner.stages)

    def growth(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        return {name: grad.abs() for name, grad in pruner.gradients(stage).items()}
