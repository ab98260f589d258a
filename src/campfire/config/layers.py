"""Layers: where values come from. Later ones win: defaults < file < ``--set`` < flags."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from campfire.config.recipes import find
from campfire.config.schema import FLAGS, FREE, OPTIONS, SECTIONS, Config, flag_of
from campfire.errors import UsageError


@dataclass(frozen=True)
class Layer:
    """Values by dotted path, and where they come from."""

    origin: str
    values: Mapping[str, Any]


def from_file(path: str | Path) -> Layer:
    """The layer in a YAML file of sections; ``recipes/NAME.yaml`` is one of the package where there is no such file.

    Raises:
        UsageError: no such file, or it is not YAML made of sections.
    """
    try:
        tree = yaml.safe_load(find(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the configuration file {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return from_tree(tree, str(path))


def from_tree(tree: Any, origin: str) -> Layer:
    """The layer in nested sections: ``{"optim": {"lr": 0.1}}``."""
    if not isinstance(tree, Mapping):
        raise UsageError(f"{origin} must hold the sections {', '.join(SECTIONS)}; got {type(tree).__name__}")
    values: dict[str, Any] = {}
    for section, body in tree.items():
        if section not in SECTIONS:
            near = difflib.get_close_matches(str(section), SECTIONS, n=1)
            raise UsageError(
                f"{origin}: no section is called {section!r}; did you mean {near[0]!r}?"
                if near
                else f"{origin}: {_unknown(str(section))}"
            )
        if not isinstance(body, Mapping):
            raise UsageError(f"{origin}: section {section} must hold keys and values; got {body!r}")
        values |= {f"{section}.{key}": value for key, value in body.items()}
    return Layer(origin, values)


def from_sets(texts: Iterable[str]) -> Layer:
    """The layer of ``--set section.key=value``; values are read as YAML.

    >>> from_sets(["optim.lr=0.05", "pruning.rules.layer1.*=window"]).values
    {'optim.lr': 0.05, 'pruning.rules.layer1.*': 'window'}
    """
    values = {}
    for text in texts:
        path, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set wants section.key=value; got {text!r}")
        try:
            values[path.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {path}: {value!r} is not YAML") from None
    return Layer("--set", values)


def from_flags(flags: Mapping[str, Any]) -> Layer:
    """The layer of a Python call: ``sparsity=0.8, epochs=5``.

    Raises:
        UsageError: no option has that name; the nearest is suggested.
    """
    for name in flags:
        if name not in FLAGS:
            raise UsageError(_unknown(name))
    return Layer("flag", {FLAGS[name]: value for name, value in flags.items()})


def merge(layers: Iterable[Layer]) -> tuple[Config, dict[str, str]]:
    """The configuration of these layers, the last one winning, and the origin of each value given.

    >>> config, origins = merge([Layer("a", {"optim.lr": 1.0}), Layer("b", {"optim.lr": 0.5})])
    >>> config.optim.lr, origins
    (0.5, {'optim.lr': 'b'})

    Raises:
        UsageError: a key is unknown or a value out of range; the place and the nearest key are named.
    """
    tree: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origins: dict[str, str] = {}
    for layer in layers:
        for path, value in layer.values.items():
            section, key, inner = (*path.split(".", 2), "", "")[:3]
            if f"{section}.{key}" not in OPTIONS:
                raise UsageError(f"{layer.origin}: {_unknown(path)}")
            if inner:  # one entry of a mapping: pruning.rules.layer1.*
                before = tree[section].get(key)
                value = {**(before if isinstance(before, Mapping) else {}), inner: value}
            tree[section][key] = value
            origins[f"{section}.{key}"] = layer.origin
    try:
        return Config.model_validate(tree), origins
    except ValidationError as error:
        raise UsageError("; ".join(_sentence(e, origins) for e in error.errors())) from None


def _unknown(path: str) -> str:
    """What to say of a key that is not there; perhaps only its section is missing."""
    leaf = path.rpartition(".")[2].replace("-", "_")
    near = difflib.get_close_matches(leaf, FLAGS, n=1)
    if not near:
        return f"no option is called {path!r}; campfire train --print-config shows them all"
    full = "." in path or leaf == near[0]
    return f"no option is called {path!r}; did you mean {(FLAGS[near[0]] if full else near[0])!r}?"


def _sentence(error: Any, origins: Mapping[str, str]) -> str:
    path = ".".join(str(part) for part in error["loc"][:2])
    origin = origins.get(path, "default")
    place = f"--{flag_of(path)}" if origin == "flag" and path in OPTIONS else f"{origin}: {path}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{place}: {message[0].lower()}{message[1:]}; got {error['input']!r}"


def to_yaml(config: Config, origins: Mapping[str, str] | None = None) -> str:
    """The configuration as a file that `from_file` reads, each value with its origin if ``origins`` are given."""
    lines = []
    for section in SECTIONS:
        lines.append(f"{section}:")
        for key, value in getattr(config, section).model_dump(mode="json").items():
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
            origin = "" if origins is None else f"  # {origins.get(f'{section}.{key}', 'default')}"
            lines.append(f"  {key}: {text.removesuffix('...' + chr(10)).strip()}{origin}")
    return "\n".join(lines) + "\n"


def differences(ours: Config, theirs: Config) -> list[str]:
    """Every option that decides the result and differs: ``optim.lr is 0.1 here and 0.05 there``."""
    found = []
    plain_ours, plain_theirs = ours.model_dump(mode="json"), theirs.model_dump(mode="json")  # a tuple is a list there
    for path in OPTIONS.keys() - FREE:
        section, key = path.split(".")
        here, there = plain_ours[section][key], plain_theirs[section][key]
        if here != there:
            found.append(f"{path} is {here} here and {there} in the checkpoint")
    return sorted(found)
