"""Rule sets by name: a structure for each kind of layer, chosen by what the kernels of a machine make of it."""

from collections.abc import Callable

from campfire.structures import REGISTRY, Structure, named
from campfire.structures.base import Shape


def cpu(shape: Shape) -> Structure:
    """Tiles of outputs in 1x1 layers, where scattered weights gain little; whole kernels elsewhere, which cost less accuracy.

    >>> str(cpu((64, 256, 1, 1))), str(cpu((64, 64, 3, 3))), str(cpu((10, 64, 1, 1)))
    ('tiles', 'ck', 'ck')
    """
    tiles = named("tiles")
    return tiles if shape[2:] == (1, 1) and not tiles.why_not(shape) else named("ck")


RULESETS: dict[str, Callable[[Shape], Structure]] = {"cpu": cpu}


def is_structure(name: str) -> bool:
    """Whether this names one structure: one of the registry, or N of N:M.

    >>> is_structure("ck"), is_structure("2"), is_structure("cpu")
    (True, True, False)
    """
    return name in REGISTRY or name.isdecimal()


def known() -> list[str]:
    """The names that may stand where a structure is asked for."""
    return [*REGISTRY, *RULESETS, "2:4", "inter-epoch"]
