"""One training of a sweep: its configuration, its name, and the checkpoint it starts from."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from campfire.config import OPTIONS, Config, prunes
from campfire.config.schema import FREE

LONGEST = 100  # letters of a name
RESERVED = ("report", "slurm", "grid.yaml", "sweep.db")  # what lies beside the trials


@dataclass(frozen=True)
class Trial:
    """A run that the grid asks for; with a ``parent``, it starts from that trial's checkpoint after ``epoch`` epochs."""

    group: str
    config: Config
    axes: frozenset[str]  # the options that the grid sets for this trial
    parent: Optional["Trial"] = None
    epoch: int | None = None

    def value(self, path: str) -> Any:
        """An option, as plain data."""
        section, key = path.split(".")
        return getattr(self.config, section).model_dump(mode="json")[key]

    @property
    def key(self) -> str:
        """A hash of what decides the result: neither options at their defaults count, nor those of pruning in a dense run.

        >>> a, b = Config.model_validate({"optim": {"lr": 0.5}}), Config.model_validate({"data": {"workers": 3}})
        >>> Trial("", a, frozenset()).key == Trial("", b, frozenset()).key
        False
        >>> Trial("", Config(), frozenset()).key == Trial("", b, frozenset()).key  # workers decide nothing
        True
        """
        usual = Trial("", Config(), frozenset())
        given = {path: self.value(path) for path in OPTIONS if path not in FREE and self.matters(path)}
        told: dict[str, Any] = {path: value for path, value in given.items() if value != usual.value(path)}
        if self.parent is not None:
            told["from"] = [self.parent.key, self.epoch]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def matters(self, path: str) -> bool:
        """Whether an option changes anything: sparsity does not in a dense run."""
        return not path.startswith("pruning.") or path == "pruning.structure" or prunes(self.config.pruning)


def varied(trials: Iterable[Trial]) -> list[str]:
    """The options that the grid sets and that are not the same in all of these trials, in the order of the schema."""
    trials = list(trials)
    axes = frozenset().union(*(trial.axes for trial in trials))
    return [p for p in OPTIONS if p in axes and len({json.dumps(t.value(p), sort_keys=True) for t in trials}) > 1]


def differences(trial: Trial, paths: Iterable[str]) -> dict[str, Any]:
    """Of these options, those that matter to the trial."""
    return {path: trial.value(path) for path in paths if trial.matters(path)}


def names(trials: list[Trial]) -> list[str]:
    """A short name for each, unlike all others, and fit to be a folder's."""
    paths = {group: varied(t for t in trials if t.group == group) for group in {t.group for t in trials}}
    found: list[str] = []
    for trial in trials:
        words = [_clean(trial.group), *map(_word, (values := differences(trial, paths[trial.group])), values.values())]
        name = "-".join(filter(None, words))[:LONGEST] or "run"
        found.append(name if name not in (*found, *RESERVED) else f"{name[: LONGEST - 9]}-{trial.key[:8]}")
    return found


def _word(path: str, value: Any) -> str:
    """``ck``, ``sparsity0.7``, ``seed1``: a text says by itself what it is, a number does not."""
    leaf = path.rpartition(".")[2].replace("_", "-")
    text = value if isinstance(value, str) else leaf + _plain(value)
    return _clean(text)


def _clean(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text).strip("-.")


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value) if isinstance(value, Mapping) else str(value)
