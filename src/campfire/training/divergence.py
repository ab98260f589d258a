"""Divergence: numbers from which no training comes back."""

import math

from torch import nn

from campfire.errors import Diverged
from campfire.training.ranks import Ranks
from campfire.training.state import Position


def check(number: float, at: Position, ranks: Ranks) -> None:
    """Raise `Diverged`, on all ranks, where the number of one of them is not finite."""
    if ranks.highest(int(not math.isfinite(number))):
        raise Diverged(
            f"the loss is no finite number any more (epoch {at.epoch}, step {at.step}); "
            "lower --lr, or raise --warmup-epochs, or set --clip-grad"
        )


def check_tested(loss: float, model: nn.Module, at: Position, ranks: Ranks) -> None:
    """Look at the weights behind a test loss that is not finite: no training loss has seen those of the last step.

    Where they are sound it is young running statistics, in half precision, and passes.
    """
    if not math.isfinite(loss):
        held = [*model.parameters(), *model.buffers()]
        check(sum(float(x.detach().double().sum()) for x in held), at, ranks)
