"""From a grid to an index: made the first time, and found again every other time."""

import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from campfire.errors import UsageError
from campfire.sweep.grid import Grid
from campfire.sweep.index import Index, Row
from campfire.sweep.launch import SPEC
from campfire.sweep.record import is_sweep
from campfire.sweep.trial import Trial, differences, names, varied

Entry = tuple[str, str, dict[str, Any]]  # key, name, specification
NOTHING: Mapping[str, str] = MappingProxyType({})
MARKS = ("status.json", "config.yaml")  # of a run


def settle(folder: Path, grid: Grid) -> Index:
    """The index of this grid in this directory, whatever has been done of it; closed by whoever asked for it.

    Raises:
        UsageError: the directory holds a sweep of another grid, or a run.
        CampfireError: it cannot be written to.
    """
    folder = folder.resolve()
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"the output {folder} is a file; give a directory")
    if any((folder / name).exists() for name in MARKS):
        raise UsageError(f"the output {folder} holds a run; give the sweep a directory of its own with --output")
    if not is_sweep(folder):  # so that what is refused leaves nothing behind
        _check_folders(folder, _entries(grid))
    index = Index.create(folder)
    with index.transaction():
        rows = index.rows()
        trials = _entries(grid, {row.key: row.name for row in rows})
        _check_same(folder, rows, trials)
        if not rows:
            _check_folders(folder, trials)
            index.set_meta(cwd=os.getcwd())
        index.set_meta(command=grid.command, give_up=None if grid.give_up is None else vars(grid.give_up))
        index.add(trials)
    return index


def describe(grid: Grid) -> list[dict[str, Any]]:
    """The trials of a grid as plain data, without their configurations."""
    return [{"name": name, **{k: v for k, v in spec.items() if k != "config"}} for _, name, spec in _entries(grid)]


def _entries(grid: Grid, there: Mapping[str, str] = NOTHING) -> list[Entry]:
    """Key, name and specification of every trial; those that are there keep their names, whatever their groups are called now."""
    trials = list(grid.trials)
    paths, called = varied(trials), {**dict(zip([t.key for t in trials], names(trials), strict=True)), **there}
    kept = defaultdict[str, set[int]](set)
    for trial in trials:
        if trial.parent is not None:
            kept[trial.parent.key].add(trial.epoch or 0)
    return [(t.key, called[t.key], _spec(t, paths, called, kept[t.key])) for t in trials]


def _spec(trial: Trial, paths: Sequence[str], called: dict[str, str], kept: set[int]) -> dict[str, Any]:
    config = trial.config.model_dump(mode="json")
    if kept:
        config["run"]["keep_epochs"] = sorted({*kept, *map(int, trial.config.run.keep_epochs or ())})
    return {
        "group": trial.group,
        "values": differences(trial, paths),
        "seed": trial.config.run.seed,
        "parent": None if trial.parent is None else called[trial.parent.key],
        "epoch": trial.epoch,
        "config": config,
    }


def _check_same(folder: Path, rows: Sequence[Row], trials: Sequence[Entry]) -> None:
    """A directory belongs to one grid."""
    there, wanted = {row.key: row.name for row in rows}, {key: name for key, name, _ in trials}
    if not rows or there.keys() == wanted.keys():
        return
    gone = [name for key, name in there.items() if key not in wanted]
    new = [name for key, name in wanted.items() if key not in there]
    said = [f"{len(names)} {what} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})" for names, what in
            ((gone, "of its trials are not in this one"), (new, "trials of this one are new")) if names]  # fmt: skip
    raise UsageError(f"{folder} holds a sweep of another grid: {' and '.join(said)}; give another --output")


def _check_folders(folder: Path, trials: Sequence[Entry]) -> None:
    """Where the index was lost, what lies in the run directories must be of these trials."""
    for key, name, _ in trials:
        path = folder / name
        if not path.exists() or not any((path / mark).exists() for mark in MARKS):
            continue
        try:
            found = json.loads((path / SPEC).read_text())["key"]
        except (OSError, ValueError, LookupError, TypeError):
            found = None
        if found != key:
            raise UsageError(f"{path} holds a run that is not of this sweep; give another --output")
