"""Structures: every module in this folder that names one registers it; adding a structure is adding a file."""

import importlib
import pkgutil
import re

from campfire.spelling import read
from campfire.structures.base import REGISTRY, Grain, Structure, require

__all__ = ["REGISTRY", "Grain", "Structure", "named", "require"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def named(spec: str) -> Structure:
    """A structure from its spelling: a name, then options after a colon; ``N:M`` is short for n:m.

    >>> named("window:mode=campfire")
    Window(mode='campfire', max_nonzero=2, dead_kernels=False)
    >>> named("2:4")
    NM(n=2, m=4)

    Raises:
        UnknownName: no such structure or option; the nearest is suggested.
        UsageError: an option has a value of the wrong kind.
    """
    if short := re.fullmatch(r"(\d+):(\d+)", spec.strip()):
        spec = f"nm:n={short[1]},m={short[2]}"
    return read("structure", spec, REGISTRY)
