"""Ended trials back to work."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from campfire.errors import UnknownName, UsageError
from campfire.sweep.index import CLAIM, Index, Row
from campfire.sweep.locks import Lock, try_lock

UNASKED = ("failed", "skipped")


def retry(folder: Path, wanted: Sequence[str] = (), fresh: bool = False) -> list[str]:
    """Mark ended trials as pending again: those of these names, or all that failed or were skipped; returns their names.

    They go on from their checkpoints, or, if ``fresh``, from nothing: then their run directories are emptied.

    Raises:
        UsageError: there is no such trial, or it is at work; or it is done, and not to begin afresh.
    """
    with Index.open(folder) as index, contextlib.ExitStack() as held:
        with index.transaction():
            chosen = _chosen(index, wanted)
            for row in chosen:
                _check(row, fresh)
            begun = [path for row in chosen if fresh and (path := folder / row.name).exists()]
            for path in begun:
                held.callback(_lock(path).release)  # nobody begins before it is empty
            for row in chosen:
                index.set(row, "pending", "asked for again", deaths=0, step=0)
        for path in begun:
            _empty(path)
    return [row.name for row in chosen]


def _chosen(index: Index, wanted: Sequence[str]) -> list[Row]:
    rows = {row.name: row for row in index.rows()}
    for name in wanted:
        if name not in rows:
            raise UnknownName("trial", name, rows)
    return [rows[name] for name in wanted] or [row for row in rows.values() if row.state in UNASKED]


def _check(row: Row, fresh: bool) -> None:
    if not row.ended:
        raise UsageError(f"{row.name} is {row.state}; a trial can be tried again once it has ended")
    if row.state == "done" and not fresh:
        raise UsageError(f"{row.name} is done; --fresh deletes its run and trains it again")


def _lock(folder: Path) -> Lock:
    if (lock := try_lock(folder / CLAIM)) is None:
        raise UsageError(f"{folder} is in use; wait for its end")
    return lock


def _empty(folder: Path) -> None:
    """First what would pass for a trial that is done, or could go on: whoever kills this leaves one that begins anew."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.name != "status.json", path.suffix != ".pt")):
        if path.name != CLAIM:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
