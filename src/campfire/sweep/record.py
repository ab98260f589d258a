"""What a sweep's directory says of its trials: for reports, tables, and whoever comes after."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campfire.errors import UsageError
from campfire.sweep.index import FILE, Index, Row


@dataclass(frozen=True)
class Record:
    """One trial.

    Args:
        name: that of its run directory, and of the trial in messages.
        path: the run directory, as ``campfire train`` writes it; not there before the trial starts.
        group: the part of the grid that it is from; ``""`` where the grid has no groups.
        values: the options that tell the trials of the sweep apart, by dotted path, such as
            ``{"pruning.structure": "ck", "pruning.sparsity": 0.7, "run.seed": 1}``; a dense trial has no further ``pruning``.
        seed: ``run.seed``, also where it is the same for all.
        state: pending, running, done, failed, diverged, pruned (given up by the grid's rule) or skipped (its parent ended).
        reason: why, for people; empty for done.
        starts: how often it was started.
        parent: the trial whose checkpoint it started from, if any, and ``epoch``, the epochs that this one had done.
    """

    name: str
    path: Path
    group: str
    values: Mapping[str, Any]
    seed: int
    state: str
    reason: str = ""
    starts: int = 0
    parent: str | None = None
    epoch: int | None = None

    @property
    def done(self) -> bool:
        return self.state == "done"


def is_sweep(path: str | Path) -> bool:
    """Whether a directory holds a sweep."""
    return (Path(path) / FILE).is_file()


def records(path: str | Path) -> list[Record]:
    """All trials of the sweep in a directory, in the order of its grid, whatever has become of them.

    Raises:
        UsageError: there is no sweep.
        CheckpointError: its index is damaged.
    """
    folder = Path(path)
    if not is_sweep(folder):
        raise UsageError(f"{folder} holds no sweep ({FILE}); give the directory that campfire sweep wrote to")
    with Index.open(folder) as index:
        return [_record(folder, row) for row in index.rows()]


def _record(folder: Path, row: Row) -> Record:
    spec = row.spec
    return Record(
        name=row.name,
        path=folder / row.name,
        group=spec["group"],
        values=spec["values"],
        seed=spec["seed"],
        state=row.state,
        reason=row.reason,
        starts=row.starts,
        parent=spec["parent"],
        epoch=spec["epoch"],
    )
