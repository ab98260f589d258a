"""Random pruning at init."""

from dataclasses import dataclass

from torch import Tensor

from campfire.mask import view4
from campfire.methods.at_init import AtInit
from campfire.methods.base import Host, Stage
from campfire.scores import Random


@dataclass(frozen=True)
class RandomAtInit(AtInit):
    """Units drawn by chance live, once and for all.

        score = uniform noise, from the seed and the layer's name

    When: the baseline of every other choice; with ``--allocation erk`` a surprisingly strong one.
    Source: Liu et al. 2022, The Unreasonable Effectiveness of Random Pruning.
    """

    name = "random"

    def scores(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        return {n: Random(pruner.seed, n)(view4(w)) for n, w in pruner.weights(stage).items()}
