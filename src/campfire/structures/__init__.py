"""Structures: every module in this folder that names one registers it; adding a structure is adding a file."""

import dataclasses
import importlib
import pkgutil
import re
from typing import Any

from campfire.errors import UnknownName, UsageError
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
    name, _, options = spec.strip().partition(":")
    if name not in REGISTRY:
        raise UnknownName("structure", name, REGISTRY)
    fields = {f.name: f for f in dataclasses.fields(REGISTRY[name])}
    given: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, equals, text = (part.strip() for part in option.partition("="))
        if key not in fields:
            raise UnknownName(f"option of structure {name!r}", key, fields or ["(it has none)"])
        if not equals:
            raise UsageError(f"option {key!r} of structure {name!r} needs a value: {name}:{key}=...")
        given[key] = _read(text, type(fields[key].default), f"option {key!r} of structure {name!r}")
    return REGISTRY[name](**given)


def _read(text: str, kind: type, what: str) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise UsageError(f"{what} is true or false; got {text!r}")
        return text.lower() in ("true", "1")
    try:
        return kind(text)
    except ValueError:
        raise UsageError(f"{what} is of type {kind.__name__}; got {text!r}") from None
