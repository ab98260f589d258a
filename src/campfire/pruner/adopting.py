"""Adopting: masks that were made elsewhere become those of a pruner, as if its schedule had made and frozen them."""

from collections.abc import Mapping

from campfire.errors import CampfireError
from campfire.mask import Mask
from campfire.pruner.clock import Clock
from campfire.pruner.pruner import Pruner


def adopt(
    pruner: Pruner, masks: Mapping[str, Mask], requested: Mapping[str, float], clock: Clock | None = None
) -> None:
    """Give every layer of a pruner of one phase its final mask, zero what is dead, and set its clock.

    Args:
        masks: of all its layers.
        requested: the sparsity at which each layer's structure declares just as many weights as its mask keeps.

    Raises:
        CampfireError: a mask is not one of its structure, or keeps another number of weights.
    """
    (stage,) = pruner.stages
    for name, layer in pruner.layers.items():
        layer.requested, layer.mask = requested[name], masks[name]
        declared = layer.structure.count(layer.target.shape, layer.requested)
        if layer.kept != declared:
            raise CampfireError(
                f"the mask of layer {name!r} keeps {layer.kept} weights; {str(layer.structure)!r} at sparsity "
                f"{layer.requested:.4f} keeps {declared}"
            )
    stage.goals, stage.plans = dict(requested), {name: dict(mask.plan) for name, mask in masks.items() if mask.plan}
    stage.applied, stage.updates = stage.schedule.target, 1
    if clock is not None:
        pruner._clock = clock
    pruner.apply()
    pruner.verify()
