"""Magnitude pruning at init."""

from dataclasses import dataclass

from torch import Tensor

from campfire.mask import view4
from campfire.methods.at_init import AtInit
from campfire.methods.base import Host, Stage


@dataclass(frozen=True)
class MagnitudeAtInit(AtInit):
    """The largest weights of the first moment live, once and for all.

        score = |w|

    When: from ``--pretrained`` weights, one-shot pruning and then fine-tuning; on fresh weights, a baseline.
    Source: Han et al. 2015, in one shot; a baseline of Frankle et al. 2021, Pruning Neural Networks at Initialization.
    """

    name = "magnitude"

    def scores(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        return {n: view4(w.detach()).abs().float() for n, w in pruner.weights(stage).items()}
