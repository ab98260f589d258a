"""How a pruner goes on beside compressed layers: it still knows their masks, and still guards those that stayed dense."""

import dataclasses
from collections.abc import Iterable
from typing import Any, cast

from torch import nn
from torch.optim import Optimizer

from campfire.compress.optimizers import holds
from campfire.nn import SparseConv2d
from campfire.nn.base import SparseLayer
from campfire.pruner import Pruner
from campfire.pruner.binding import Binding
from campfire.pruner.layer import PrunedLayer
from campfire.pruner.rules import Target


class CompressedTarget(Target):
    """A layer that was pruned and is sparse now: the pruner reports on it, and holds no dense weight for it."""

    @property
    def conv(self) -> bool:
        return isinstance(self.module, SparseConv2d)


def follow(layer: PrunedLayer, module: SparseLayer | nn.Conv2d | nn.Linear) -> None:
    """From now on this module is the pruned layer."""
    kind = CompressedTarget if isinstance(module, SparseLayer) else Target
    fields = {f.name: getattr(layer.target, f.name) for f in dataclasses.fields(Target)}
    layer.target = kind(**{**fields, "module": cast(Any, module)})
    layer.forget()


def keep_masked(pruner: Pruner, optimizers: Iterable[Optimizer]) -> None:
    """Bind the pruner to those of its masked layers that stayed dense: else their dead weights would revive."""
    optimizers = list(optimizers)
    left = [x for x in pruner.layers.values() if x.mask is not None and not isinstance(x.target.module, SparseLayer)]
    if any(holds(o, [x.weight for x in left]) for o in optimizers):
        pruner._binding = Binding(left, optimizers, pruner._before_step, pruner._after_step)
