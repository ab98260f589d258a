"""The checkpoint before the last one: what a run falls back on where the last one is damaged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from campfire.errors import CheckpointError, UsageError
from campfire.files.writing import also
from campfire.training import checkpoint
from campfire.training.progress import log, log_in
from campfire.training.run_directory import RunDirectory


def save(folder: RunDirectory, state: Mapping[str, Any]) -> None:
    """Write ``last.pt``, and keep the one before as ``previous.pt``; one of them is whole at all times."""
    if folder.last.exists():
        also(folder.last, folder.previous)
    checkpoint.save(folder.last, state)


def load(start: Path) -> tuple[dict[str, Any], Path]:
    """A checkpoint, or the newest one of a run directory that can be read; and which that is.

    Raises:
        UsageError: there is none.
        CheckpointError: it is damaged; of a directory, both are.
    """
    if not start.is_dir():
        return checkpoint.load(start), start
    folder = RunDirectory(start)
    try:
        return checkpoint.load(folder.last), folder.last
    except (CheckpointError, UsageError) as error:
        if not folder.previous.exists():
            raise
        first = error
    try:
        return checkpoint.load(folder.previous), folder.previous
    except CheckpointError as error:
        raise CheckpointError(f"{first}; and of the one before it: {error}") from None


def adopt(folder: RunDirectory, epoch: int, step: int) -> None:
    """Go on from ``previous.pt`` as the last one, say so, and put the damaged one aside."""
    if folder.last.exists():
        also(folder.last, folder.damaged)
    also(folder.previous, folder.last)
    with log_in(folder.path / "log.txt"):
        log.warning(
            "warning: last.pt is damaged; going on from previous.pt, epoch %d, step %d (the damaged one: damaged.pt)",
            epoch,
            step,
        )
