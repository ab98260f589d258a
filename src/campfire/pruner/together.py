"""The masks of many layers made together: on a GPU a launch costs as much as a layer."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from campfire.mask import view4
from campfire.native.gpu import masks as gpu
from campfire.pruner.layer import PrunedLayer
from campfire.scores import magnitude
from campfire.selection import Part, keep_best_runs
from campfire.structures import Structure


def masks_together(layers: Iterable[tuple[PrunedLayer, Structure]]) -> Mapping[str, Tensor]:
    """The bools, by layer, of all masks that are the best runs of weights by magnitude and lie on a GPU; others are left out."""
    by_device: dict[torch.device, dict[str, Part]] = {}
    for layer, structure in layers:
        if layer.score is magnitude and gpu.serves(layer.weight.device) and (part := _part(layer, structure)):
            by_device.setdefault(layer.weight.device, {})[layer.target.name] = part
    found: dict[str, Tensor] = {}
    for parts in by_device.values():
        if (keeps := keep_best_runs(list(parts.values()))) is not None:
            found |= dict(zip(parts, keeps, strict=True))
    return found


def _part(layer: PrunedLayer, structure: Structure) -> Part | None:
    count, grain = structure.count(layer.target.shape, layer.requested), structure.run(layer.target.shape)
    value = view4(layer.weight.detach())
    if not grain or not 0 < count < layer.kept or not gpu.servable(value):
        return None
    mask = layer.mask
    return Part(value, None if mask is None else mask.keep.contiguous(), count, grain)
