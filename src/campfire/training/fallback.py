"""The checkpoints before the last one: what a run falls back on where the last one is damaged."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from campfire.errors import CheckpointError
from campfire.files.writing import also
from campfire.training import checkpoint
from campfire.training.progress import log, log_in
from campfire.training.run_directory import RunDirectory


def save(folder: RunDirectory, state: Mapping[str, Any], keep: int = 2) -> None:
    """Write ``last.pt``, and keep ``keep`` in all: ``previous.pt``, ``previous-2.pt``, ...; the last one is whole at all times."""
    older = (folder.path / f"previous-{i}.pt" for i in range(2, keep))
    names = [folder.last, folder.previous, *older][:keep]
    for newer, older in reversed([*itertools.pairwise(names)]):
        if newer.exists():
            also(newer, older)
    checkpoint.save(folder.last, state)
    folder.forget_attacks()
    for path in folder.generations:
        if path not in names:
            path.unlink()


def load(start: Path) -> tuple[dict[str, Any], Path]:
    """A checkpoint, or the newest one of a run directory that can be read; and which that is.

    Raises:
        UsageError: there is none.
        CheckpointError: it is damaged; of a directory, all are.
    """
    if not start.is_dir():
        return checkpoint.load(start), start
    folder, errors = RunDirectory(start), []
    for path in folder.generations or [folder.last]:
        try:
            return checkpoint.load(path), path
        except CheckpointError as error:
            errors.append(str(error))
    raise CheckpointError("; and of the one before it: ".join(errors))


def adopt(folder: RunDirectory, origin: Path, epoch: int, step: int) -> None:
    """Go on from an older checkpoint as the last one, say so, and put the damaged one aside."""
    aside = " (the damaged one: damaged.pt)" if folder.last.exists() else ""
    with log_in(folder.path / "log.txt"):
        say(origin, epoch, step, aside)
    if aside:
        also(folder.last, folder.damaged)
    also(origin, folder.last)


def say(origin: Path, epoch: int, step: int, aside: str = "") -> None:
    """Which checkpoint stands in for the last one."""
    why = "damaged" if origin.with_name("last.pt").exists() else "gone"
    log.warning("warning: last.pt is %s; going on from %s, epoch %d, step %d%s", why, origin.name, epoch, step, aside)
