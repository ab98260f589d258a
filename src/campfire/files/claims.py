"""A file's claim that a mask is of a structure: judged, not believed."""

import dataclasses

from campfire.errors import CampfireError
from campfire.mask import Mask
from campfire.structures import Structure, named
from campfire.structures.hrbp import HRBP

LONGEST = 200  # of a spelling


def why_not_held(spelling: str, mask: Mask) -> list[str]:
    """Reasons why a mask is not of the structure that is claimed; [] when it is, or nobody here knows the structure.

    Not judged either: structures whose rule needs what was planned for the layer, where the mask does not tell it.

    >>> import torch
    >>> why_not_held("kernel", Mask(torch.eye(9).view(9, 1, 3, 3).bool()))
    ["some units (axes 'r s') are half alive"]
    """
    try:
        structure = named(spelling) if len(spelling) <= LONGEST else None
    except CampfireError:
        return []
    if structure is None:
        return [f"a structure is spelled in {LONGEST} letters at most"]
    if not set(structure.needs) <= set(mask.plan) and (structure := _weaker(structure, mask)) is None:
        return []
    shape = tuple(mask.keep.shape)
    largest = max(shape[0], shape[1], shape[2] * shape[3], LONGEST)
    sizes = [getattr(structure, field.name) for field in dataclasses.fields(structure)]
    if any(type(size) is int and size > largest for size in sizes):  # it would be padded to that
        return [f"an option is larger than any side of {shape}"]
    return structure.why_not(shape) or structure.why_invalid(mask)


def _weaker(structure: Structure, mask: Mask) -> Structure | None:
    """What can be judged without the whole plan: blocks of some inputs are blocks of one input, too."""
    if isinstance(structure, HRBP) and "order" in mask.plan and mask.keep.shape[1] % structure.channels == 0:
        return dataclasses.replace(structure, channels=1)
    return None
