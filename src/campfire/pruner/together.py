"""Masks without scores, of weights where they lie; on a GPU for many layers together: a launch costs as much as a layer."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from campfire.mask import view4
from campfire.native import masks as native
from campfire.native.gpu import masks as gpu
from campfire.pruner.layer import PrunedLayer
from campfire.scores import magnitude
from campfire.selection import Part, keep_best_runs
from campfire.structures import Structure


def masks_together(layers: Iterable[tuple[PrunedLayer, Structure]]) -> Mapping[str, Tensor]:
    """The bools, by layer, of all masks that are the best runs of weights by magnitude; others are left out, and those that
    neither a GPU nor native code makes."""
    by_device: dict[torch.device, dict[str, Part]] = {}
    found: dict[str, Tensor] = {}
    for layer, structure in layers:
        if layer.score is not magnitude or (part := _part(layer, structure)) is None:
            continue
        if gpu.serves(layer.weight.device):
            by_device.setdefault(layer.weight.device, {})[layer.target.name] = part
        elif (keep := native.keep_largest(*part)) is not None:
            found[layer.target.name] = keep
    for parts in by_device.values():
        if (keeps := keep_best_runs(list(parts.values()))) is not None:
            found |= dict(zip(parts, keeps, strict=True))
    return found


def lost_outputs(layers: Sequence[PrunedLayer]) -> list[Tensor]:
    """How many outputs no weight reaches, where the structure does not mean it: ints [some], for all layers in order."""
    keeps = [layer.keep for layer in layers]
    alike = len({keep.device for keep in keeps}) == 1 and all(keep.is_contiguous() for keep in keeps)
    if alike and (lost := gpu.lost_outputs(keeps)) is not None:
        return [lost]
    # any() of bools takes 50 times as long
    return [(keep.view(torch.uint8).flatten(1).amax(1) == 0).sum()[None] for keep in keeps]


def _part(layer: PrunedLayer, structure: Structure) -> Part | None:
    count, grain = structure.count(layer.target.shape, layer.requested), structure.run(layer.target.shape)
    value = view4(layer.weight.detach())
    if not grain or not 0 < count < layer.kept or not gpu.servable(value):
        return None
    mask = layer.mask
    return Part(value, None if mask is None else mask.keep.contiguous(), count, grain)
