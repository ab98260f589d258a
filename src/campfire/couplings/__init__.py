"""Couplings: what the channels of one layer mean for the layers that read them (floor 3).

A channel whose weights are all zero is not zero but *constant*: its bias, then whatever batch normalisation and
activation make of it. Dropping its readers' weights changes the logits; folding the constant into their biases does not::

    conv1      0 0 0 + b          BN, ReLU, pool           conv2        bias  +=  sum(W[:, c]) * v
    channel c  0 0 0       --->   v everywhere     --->    W[:, c]  ->  0
               0 0 0

Exact is what tracing proves: through any operator that works point by point, pooling, flattening and concatenation;
never across an addition to something that is not constant, nor where zero padding shows a reader the image's border.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from campfire.couplings.folding import DeadChannel, Folding
from campfire.couplings.tracing import Example, trace
from campfire.mask import Mask
from campfire.naming import by_layer

__all__ = ["CouplingReport", "DeadChannel", "eliminate_", "find_dead"]


@dataclass(frozen=True)
class CouplingReport:
    """What `eliminate_` did: every dead channel with each of its readers, and what changed in the model."""

    channels: list[DeadChannel]
    new_biases: list[str] = field(default_factory=list)  # layers that got a bias they did not have
    masks: dict[str, Mask] = field(default_factory=dict)  # the masks that changed

    @property
    def freed(self) -> int:
        """How many living weights went."""
        return sum(channel.freed for channel in self.channels)

    @property
    def refused(self) -> list[DeadChannel]:
        """The channels that a reader still reads."""
        return [channel for channel in self.channels if channel.reason]

    def __str__(self) -> str:
        counts, freed = Counter(), Counter()
        for c in self.channels:
            counts[c.layer, c.consumer, c.reason] += 1
            freed[c.layer, c.consumer, c.reason] += c.freed
        lines = [
            f"  {layer} -> {consumer}: {count} channel{'s' * (count > 1)}, {freed[layer, consumer, reason]} weights freed"
            + (f"; the rest stays: {reason}" if reason else "")
            for (layer, consumer, reason), count in counts.items()
        ]
        return "\n".join([f"{self.freed} weights freed behind dead channels", *lines])


@torch.no_grad()
def find_dead(model: nn.Module, example: Example) -> list[DeadChannel]:
    """Every output channel that is constant in eval mode, once for each of its readers; the model stays as it is.

    ``freed`` and ``reason`` tell what `eliminate_` would do.

    Raises:
        UsageError: the model cannot be traced.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3))
    >>> _ = nn.init.zeros_(net[0].weight[1]), nn.init.constant_(net[0].bias, 0.5)
    >>> find_dead(net, torch.zeros(1, 1, 8, 8))
    [DeadChannel(layer='0', channel=1, value=0.5, consumer='2', reason=None, freed=36)]
    """
    return Folding(trace(model, example)).channels


@torch.no_grad()
def eliminate_(model: nn.Module, example: Example, *, masks: Mapping[str, Mask] | None = None) -> CouplingReport:
    """Fold every dead channel into its readers' biases and zero the weights that read it; eval-mode logits stay.

    A reader without a bias that is followed by a batch normalisation of its own takes the constant there (the running
    mean); one without either gets a bias: **a new parameter and state-dict key**, named in ``new_biases``, unknown to
    the optimizer. Everything else keeps its class, keys and dtype. Every output of a linear layer keeps an input.

    The constants are those of the running statistics as they stand, so batch normalisations should have seen the
    pruned weights before. Channels are zeroed, not cut out: shapes stay, and a layout may skip the zeros.

    Args:
        model: traced in eval mode, whatever its flags, which are put back.
        example: one input, or a tuple of them, on the model's device.
        masks: layer name -> mask, as a pruner names its layers, whatever is compiled or wrapped around them. With it,
            dead is what the masks keep dead, not what happens to be zero, and ``report.masks`` holds the masks that
            must be used from now on, new ones for readers that had none.

    Raises:
        UsageError: the model cannot be traced.
        UnknownName: ``masks`` names no layer that has a weight.
        DoesNotFit: a mask is not of the shape of its layer's weight.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3))
    >>> _ = nn.init.zeros_(net[0].weight[1])
    >>> print(eliminate_(net, torch.zeros(1, 1, 8, 8)))
    36 weights freed behind dead channels
      0 -> 2: 1 channel, 36 weights freed
    """
    folding = Folding(trace(model, example), None if masks is None else by_layer(model, masks))
    folding.commit()
    return CouplingReport(
        folding.channels, sorted(folding.new_biases), folding.changed_masks() if masks is not None else {}
    )
