"""SET: sparse evolutionary training."""

from dataclasses import dataclass

from torch import Tensor

from campfire.methods.base import Host, Stage
from campfire.methods.regrow import Regrow, drawn


@dataclass(frozen=True)
class Set(Regrow):
    """At every update the smallest weights of each layer die, and as many grow at random places.

        dies: the share ``fraction`` of the living with the smallest |w|;  grows: drawn

    In a structure whole units die and grow, ranked by |w| as the structure ranks them. ``itop``: what never lived grows
    first (Liu et al. 2021), and `explored` tells how much of the layer has lived.
    When: training is to be sparse from the first step to the last, and gradients of dead weights are too expensive.
    Source: Mocanu et al. 2018, Scalable training of artificial neural networks with adaptive sparse connectivity.
    """

    name = "set"

    def growth(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        return drawn(pruner, stage)
