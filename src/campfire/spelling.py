"""Plug-ins by name: ``name:option=value,option=value`` to a frozen dataclass and back (floor 0: no torch)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from campfire.errors import UnknownName, UsageError


def spell(name: str, plugin: Any) -> str:
    """The shortest spelling of a dataclass: its name, and the options that differ from their defaults."""
    changed = [f.name for f in dataclasses.fields(plugin) if getattr(plugin, f.name) != f.default]
    return name + ":" * bool(changed) + ",".join(f"{field}={getattr(plugin, field)}" for field in changed)


def read(kind: str, spec: str, registry: Mapping[str, type]) -> Any:
    """What ``spec`` spells.

    Raises:
        UnknownName: no such plug-in or option; the nearest is suggested.
        UsageError: an option has no value, or one of the wrong type.
    """
    name, _, options = spec.strip().partition(":")
    if name not in registry:
        raise UnknownName(kind, name, registry)
    fields = {f.name: f for f in dataclasses.fields(registry[name])}
    given: dict[str, Any] = {}
    for option in filter(None, options.split(",")):
        key, equals, text = (part.strip() for part in option.partition("="))
        what = f"option {key!r} of {kind} {name!r}"
        if key not in fields:
            raise UnknownName(f"option of {kind} {name!r}", key, fields or ["(it has none)"])
        if not equals:
            raise UsageError(f"{what} needs a value: {name}:{key}=...")
        given[key] = _value(text, type(fields[key].default), what)
    return registry[name](**given)


def _value(text: str, kind: type, what: str) -> Any:
    words = {"true": True, "1": True, "false": False, "0": False}
    try:
        return words[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise UsageError(f"{what} is of type {kind.__name__}; got {text!r}") from None
