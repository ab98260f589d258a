"""A run from its configuration: new, or continued from a checkpoint."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from campfire.config import Config, from_flags, from_tree, load
from campfire.errors import UsageError
from campfire.training import board, fallback
from campfire.training.build import build
from campfire.training.loop import Training
from campfire.training.outcome import Result
from campfire.training.run_directory import RunDirectory, fresh
from campfire.training.state import Position, restore


def train(
    config: Config | Mapping[str, Any] | str | None = None,
    *,
    output: str | Path | None = None,
    resume: str | Path | None = None,
    overwrite: bool = False,
    allow_config_change: bool = False,
    console: Console | None = None,
    **flags: Any,
) -> Result:
    """Train a CNN, dense or sparse: ``campfire train`` in Python, with the same names and defaults.

    SIGTERM, SIGUSR1 and Ctrl-C end the run after the running step, with a checkpoint (`Preempted`, `Interrupted`).

    Args:
        config: a complete `Config`, nested sections as in a configuration file, or just the images: ``"digits"``.
        output: the run directory; default ``runs/<time>-<model>-<data>``.
        resume: ``"auto"`` continues ``last.pt`` of ``output`` if it is there, and ``previous.pt`` where it is damaged; so does
            the path of a run directory; the path of a checkpoint continues that one.
        overwrite: replace the run that is in ``output``.
        allow_config_change: resume although the configuration is not the checkpoint's.
        console: a terminal, for a progress bar.
        flags: options by the names of their flags, such as ``sparsity=0.8, epochs=5``; they win over ``config``.

    Raises:
        UsageError: an option or a combination that cannot be; nothing is written.
        CheckpointError: the checkpoint to resume is damaged, or of another run; nothing is written.
        Diverged: the loss is no finite number any more; the last checkpoint is whole.

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
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("campfire trains in one process; WORLD_SIZE asks for more")
    folder, start = _locate(output, resume)
    home = start if start is None or start.is_dir() else start.parent
    same = home is not None and folder is not None and home.resolve() == folder.path.resolve()
    if folder is not None and not (same or overwrite or resume == "auto"):
        folder.refuse_another_run()
    saved, origin = (None, None) if start is None else fallback.load(start)
    if config.run.tensorboard:
        board.require()
    parts = build(config)
    position = Position() if saved is None else restore(parts, saved, str(origin), allow_config_change)
    folder = folder or RunDirectory(fresh(parts.config.model.name or "", parts.config.data.source))
    with folder.locked():
        if not same:
            folder.clear()
        elif origin == folder.previous:
            fallback.adopt(folder, position.epoch, position.step)
        with board.shown(folder, config.run.tensorboard):
            return Training(parts, position, folder, console).run()


def _locate(output: str | Path | None, resume: str | Path | None) -> tuple[RunDirectory | None, Path | None]:
    """Where the run is written, if that was said, and the checkpoint or directory it continues, if any."""
    folder = None if output is None else RunDirectory(Path(output))
    if resume is None:
        return folder, None
    if resume == "auto":
        if folder is None:
            raise UsageError("--resume auto looks into --output for last.pt; give one")
        return folder, folder.path if folder.last.exists() or folder.previous.exists() else None
    start = Path(resume)
    return folder or RunDirectory(start if start.is_dir() else start.parent), start
