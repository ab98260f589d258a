"""Quantisation: every module in this folder that names a way to write values in few bits registers it."""

import importlib
import pkgutil
import re

from campfire.quantise.base import REGISTRY, Codes, Values
from campfire.spelling import read

__all__ = ["REGISTRY", "Codes", "Values", "named"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def named(spec: str) -> Values:
    """A way to write values from its spelling; ``codebook:4`` is short for ``codebook:bits=4``.

    >>> named("codebook:4"), named("int8")
    (Codebook(bits=4), Int8())

    Raises:
        UnknownName: no such way or option; the nearest is suggested.
        UsageError: an option has a value of the wrong kind, or out of range.
    """
    if short := re.fullmatch(r"(\w+):(\d+)", spec.strip()):
        spec = f"{short[1]}:bits={short[2]}"
    return read("way to write values", spec, REGISTRY)
