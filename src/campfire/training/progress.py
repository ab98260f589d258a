"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, on stderr; and always ``log.txt``."""

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from campfire.training.build import Parts
from campfire.training.state import Position

log = logging.getLogger("campfire")


class Reporter:
    """Shows the steps of each epoch."""

    def __init__(self, console: Console | None, every: int):
        self.every, self._bar = every, None
        if console is not None and console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)

    @contextmanager
    def epoch(self, number: int, epochs: int, steps: int) -> Iterator["Reporter"]:
        """One epoch of ``steps`` steps."""
        self._title, self._steps = f"epoch {number + 1}/{epochs}", steps
        if self._bar is None:
            yield self
            return
        self._task = self._bar.add_task(self._title, total=steps, note="")
        with self._bar:
            yield self
        self._bar.remove_task(self._task)

    def step(self, done: int, sums: Tensor) -> None:
        """``done`` steps of the epoch are done; ``sums`` of loss, correct and images so far."""
        if self._bar is not None and done % 5 == 0:
            self._bar.update(self._task, completed=done, note=_note(sums))
        elif self._bar is None and done % self.every == 0:
            log.info("%s, step %d/%d: %s", self._title, done, self._steps, _note(sums))


def _note(sums: Tensor) -> str:
    loss, right, images = sums.tolist()
    return f"loss {loss / images:.3f}, top-1 {100 * right / images:.2f} %"


def announce(parts: Parts, position: Position, output: Path) -> None:
    """What is about to run."""
    config, images = parts.config, parts.data
    log.info("%s %s", f"continuing at step {position.step}:" if position.step else "starting:", output)
    log.info(
        "%s on %s (%d training and %d test images of %d classes, %d pixels), %s, batch %d x %d",
        config.model.name, images.name, len(images.train), len(images.test), len(images.classes),
        images.image_size, parts.device, config.data.batch_size, config.optim.grad_accum_steps,
    )  # fmt: skip
    if parts.pruner is not None:
        log.info("%s", parts.pruner.report())


def line(record: Mapping[str, Any], epochs: int) -> str:
    """One epoch, for a person."""
    return (
        f"epoch {record['epoch'] + 1}/{epochs}: loss {record['train_loss']:.4f}, top-1 {record['eval_top1']:.2f} % "
        f"(train {record['train_top1']:.2f} %), zeros {100 * record['sparsity_true']:.2f} %, {record['seconds']:.1f} s"
    )


def show_log() -> Console:
    """Send the log and all warnings to stderr, for the command line."""
    console = Console(stderr=True)
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if console.is_terminal:
        from rich.logging import RichHandler

        handler = RichHandler(console=console, show_level=False, show_path=False, show_time=False)
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    warnings.showwarning = lambda message, *_, **__: log.warning("warning: %s", message)
    return console


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append the log to a file meanwhile."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
        handler.close()
