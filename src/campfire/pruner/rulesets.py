"""Rule sets by name: a structure for each kind of layer, chosen by what the kernels of a machine make of it."""

from collections.abc import Callable

from campfire.structures import Structure, named
from campfire.structures.base import Shape


def cpu(shape: Shape) -> Structure:
    """Tiles of outputs in 1x1 layers, where scattered weights gain little; whole kernels elsewhere, which cost less accuracy.

    >>> str(cpu((64, 256, 1, 1))), str(cpu((64, 64, 3, 3))), str(cpu((10, 64, 1, 1)))
    ('tiles', 'ck', 'ck')
    """
    tiles = named("tiles")
    return tiles if shape[2:] == (1, 1) and not tiles.why_not(shape) else named("ck")


RULESETS: dict[str, Callable[[Shape], Structure]] = {"cpu": cpu}
