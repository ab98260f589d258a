"""Defaults that a file wrote down, as a run's ``config.yaml`` does: they stay, also where later options would give others."""

from typing import Any

from campfire.config.completion import derived
from campfire.config.layers import Layer, merge
from campfire.config.schema import OPTIONS, Config
from campfire.errors import UsageError

_OPEN = frozenset(derived(Config()).values)  # what follows from other options where it is left open


def pinned(file: Layer, config: Config) -> list[str]:
    """The options of a file that stood at their defaults there, and in ``config`` would have others, in words.

    >>> file = Layer("run.yaml", {"optim.opt": "sgd", "optim.lr": 0.1})
    >>> pinned(file, Config.model_validate({"optim": {"opt": "adam", "lr": 0.1}}))
    ['optim.lr stays 0.1 (default now: 0.001)']
    """
    was, stands = merge([file])[0], _plain(config)
    before, now = _by_default(was), _by_default(config)
    same = [path for path in OPTIONS if path in file.values and _plain(was)[path] == before[path] == stands[path]]
    return [f"{path} stays {stands[path]} (default now: {now[path]})" for path in same if stands[path] != now[path]]


def _plain(config: Config) -> dict[str, Any]:
    """Options by dotted path."""
    tree = config.model_dump(mode="json")
    return {f"{section}.{key}": value for section, body in tree.items() for key, value in body.items()}


def _by_default(config: Config) -> dict[str, Any]:
    """The options as they would be, had those been left open that can be."""
    rest = Layer("", {path: value for path, value in _plain(config).items() if path not in _OPEN})
    try:
        return _plain(merge([rest, derived(merge([rest])[0])])[0])
    except UsageError:  # they cannot be left open
        return _plain(config)
