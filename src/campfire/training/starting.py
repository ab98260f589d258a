"""A run from its configuration: new, or continued from a checkpoint; by one process, or by all that torchrun started."""

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from campfire.config import OPTIONS, Config, from_flags, from_tree, load
from campfire.config.schema import FREE
from campfire.errors import UsageError
from campfire.training import board, fallback
from campfire.training.build import Parts, build
from campfire.training.locking import locked
from campfire.training.loop import Training
from campfire.training.outcome import Result
from campfire.training.ranks import joined
from campfire.training.run_directory import RunDirectory, fresh
from campfire.training.state import Position, restore


def train(
    config: Config | Mapping[str, Any] | str | None = None,
    *,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    overwrite: bool = False,
    allow_config_change: bool = False,
    allow_world_change: bool = False,
    console: Console | None = None,
    **flags: Any,
) -> Result:
    """Train a CNN, dense or sparse: ``campfire train`` in Python, with the same names and defaults.

    SIGTERM, SIGUSR1 and Ctrl-C end the run after the running step, with a checkpoint (`Preempted`, `Interrupted`). Started
    by torchrun, or where `torch.distributed` is initialised, the processes train together; the first one writes.

    Args:
        config: a complete `Config`, nested sections as in a configuration file, or just the images: ``"digits"``.
        output: the run directory; default ``runs/<time>-<model>-<data>``.
        resume: ``"auto"`` continues ``last.pt`` of ``output`` if it is there, and ``previous.pt`` where it is damaged; so does
            the path of a run directory; the path of a checkpoint continues that one.
        overwrite: replace the run that is in ``output``.
        allow_config_change: resume although the configuration is not the checkpoint's.
        allow_world_change: resume although the checkpoint is of another number of processes; the images are shared anew.
        console: a terminal, for a progress bar.
        flags: options by the names of their flags, such as ``sparsity=0.8, epochs=5``; they win over ``config``.

    Raises:
        UsageError: an option or a combination that cannot be; nothing is written.
        CheckpointError: the checkpoint to resume is damaged, or of another run; nothing is written.
        Diverged: the loss is no finite number any more; the last checkpoint is whole.
        Preempted, Interrupted: a signal, or Ctrl-C, ended the run; `resume` goes on.
        MaskViolation: after the last epoch a weight lives that should not.
        CampfireError: an image cannot be read, TensorBoard is not installed, or another process of the run is gone.
        OSError: the disk is full; the last checkpoint is whole.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     data = "synthetic:images=64,size=16"
    ...     result = train(data, model="resnet8", epochs=1, batch_size=16, sparsity=0.5, output=f"{folder}/run")
    >>> result.sparsity_true
    0.5
    """
    if isinstance(config, str):
        config, flags = None, {"data": config, **flags}
    if not isinstance(config, Config) or flags:
        tree = config.model_dump() if isinstance(config, Config) else config or {}
        config, _ = load(from_tree(tree, "config"), from_flags(flags))
    with joined(config.compute.device) as ranks, contextlib.ExitStack() as while_running:
        restarted = ranks.highest(_elastic("RESTART_COUNT")) > 0  # each machine counts its own
        with ranks.together():
            start = _open(output, resume, overwrite, restarted, while_running) if ranks.first else _Start()
        saved, origin = ranks.from_first((start.saved, str(start.origin)))
        with ranks.together():
            if config.run.tensorboard:
                board.require()
            parts = build(config, ranks)
        ranks.check_equal(_facts(parts))
        with ranks.together():
            allowed = allow_config_change, allow_world_change
            position = Position() if saved is None else restore(parts, saved, origin, *allowed)
        with ranks.together():
            path = _prepare(start, parts, position, while_running) if ranks.first else None
        folder = RunDirectory(ranks.from_first(path) or Path(), writes=ranks.first)
        with board.shown(folder, config.run.tensorboard and ranks.first):
            return Training(parts, position, folder, console).run()


def _facts(parts: Parts) -> dict[str, Any]:
    """What must be equal on all ranks: what decides the result. Images may lie elsewhere on each machine."""
    config = parts.config.model_dump(mode="json")
    options = {
        path: config[path.partition(".")[0]][path.partition(".")[2]] for path in OPTIONS.keys() - FREE - {"data.source"}
    }
    return {**options, "images.fingerprint": parts.data.fingerprint}


@dataclass
class _Start:
    """Where a run is written, if that was said, and what it continues, if anything."""

    folder: RunDirectory | None = None
    origin: Path | None = None  # a checkpoint
    saved: dict[str, Any] | None = None
    fell_back: bool = False  # from a newer one, which is damaged

    @property
    def same(self) -> bool:
        """Whether the run goes on where it was."""
        home = None if self.origin is None else self.origin.resolve().parent
        return self.folder is not None and home == self.folder.path.resolve()


def _open(
    output: str | Path | None,
    resume: str | Path | None,
    overwrite: bool,
    restarted: bool,
    while_running: contextlib.ExitStack,
) -> _Start:
    """Look at the output, and at the checkpoint; nothing is written but a lock."""
    if _elastic("MAX_RESTARTS") and output is None:
        raise UsageError("torchrun --max-restarts needs --output: a restarted run must find its checkpoint")
    folder, start = _locate(output, resume)
    if folder is not None:
        folder.require_directory()
        while_running.enter_context(locked(folder.path))
        if _begun(folder, restarted, overwrite):
            resume, start = "auto", folder.path if folder.generations else start
    found = _Start(folder)
    if start is not None:
        found.saved, found.origin = fallback.load(start)
        found.fell_back = start.is_dir() and found.origin != RunDirectory(start).last
    if folder is not None and not (found.same or overwrite):
        folder.refuse_another_run() if resume != "auto" else folder.refuse_finished_run()
    return found


def _begun(folder: RunDirectory, restarted: bool, overwrite: bool) -> bool:
    """Whether the run that is there was started by this very torchrun, which has since lost a process or a machine.

    What it was told to replace may still be there, if it had not come so far.
    """
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "none")  # torchrun's own word for no name
    if launch == "none" or not _elastic("MAX_RESTARTS"):
        return restarted
    try:
        same = json.loads((folder.path / "env.json").read_text(encoding="utf-8")).get("launch") == launch
    except (OSError, ValueError, AttributeError):
        same = False
    return same or (restarted and not overwrite)


def _elastic(name: str) -> int:
    """What torchrun says of starting its processes again."""
    return int(os.environ.get(f"TORCHELASTIC_{name}", "0"))


def _locate(output: str | Path | None, resume: str | Path | None) -> tuple[RunDirectory | None, Path | None]:
    """Where the run is written, if that was said, and the checkpoint or directory it continues, if any."""
    folder = None if output is None else RunDirectory(Path(output))
    if resume is None:
        return folder, None
    if resume == "auto":
        if folder is None:
            raise UsageError("--resume auto looks into --output for last.pt; give one")
        return folder, folder.path if folder.generations else None
    start = Path(resume)
    return folder or RunDirectory(start if start.is_dir() else start.parent), start


def _prepare(start: _Start, parts: Parts, position: Position, while_running: contextlib.ExitStack) -> Path:
    """Make the output ready to be written to; returns its path."""
    folder = start.folder
    if folder is None:
        folder = _fresh(parts, while_running)
    if not start.same:
        folder.clear()
    folder.sweep()
    if start.fell_back and start.origin is not None:
        if start.same:
            fallback.adopt(folder, start.origin, position.epoch, position.step)
        else:
            fallback.say(start.origin, position.epoch, position.step)
    return folder.path


def _fresh(parts: Parts, while_running: contextlib.ExitStack) -> RunDirectory:
    """A directory of its own, for a run that was given none; others may begin in the same second."""
    while True:
        folder = RunDirectory(fresh(parts.config.model.name or "", parts.config.data.source))
        try:
            while_running.enter_context(locked(folder.path))
        except UsageError:
            if not folder.path.exists():  # nobody's: it cannot be written
                raise
        else:
            return folder
