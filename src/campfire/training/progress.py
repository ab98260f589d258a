"""What a person sees of a run: a bar on a terminal, plain lines elsewhere, on stderr; and always ``log.txt``."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from campfire.training.build import Parts, images_per_step
from campfire.training.state import Position
from campfire.training.throughput import pace

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

    def step(self, done: int, position: Position, world: int) -> None:
        """``done`` steps of the epoch are done; each of ``world`` processes has seen as many images."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done)
            if done % 10 == 1:
                self._bar.update(self._task, note=_note(position, world))
        elif done % self.every == 0:
            log.info("%s, step %d/%d: %s", self._title, done, self._steps, _note(position, world))


def _note(position: Position, world: int) -> str:
    loss, right, images = position.sums.tolist()
    speed = pace(images * world, position.seconds, position.waited)
    return f"loss {loss / images:.3f}, top-1 {100 * right / images:.2f} %, {speed}"


def announce(parts: Parts, position: Position, output: Path) -> None:
    """What is about to run."""
    config, images = parts.config, parts.data
    log.info("%s %s", f"continuing at step {position.step}:" if position.step else "starting:", output)
    factors = [config.data.batch_size, config.optim.grad_accum_steps, *([parts.ranks.world] * parts.ranks.several)]
    batch = " x ".join(map(str, factors))
    log.info("%s on %s; %s, batch %s", config.model.name, images, parts.device, batch)
    if parts.ranks.several:
        log.info(
            "%d processes: a step is %s (accumulated, processes) = %d images",
            parts.ranks.world,
            batch,
            images_per_step(config, parts.ranks),
        )
    if config.optim.lr_base_size is not None:
        size, given = images_per_step(config, parts.ranks), config.optim.lr_base_size
        log.info("learning rate %g x %d / %d = %g, scaled linearly", config.optim.lr, size, given, parts.optim.lr)
    if parts.pruner is not None:
        layers = parts.report().layers
        pruned = [r for r in layers if r.structure is not None]
        names = ", ".join(dict.fromkeys(str(r.structure) for r in pruned))
        dense = "; ".join(f"{r.name} ({r.reason})" for r in layers if r.structure is None)
        log.info("pruning %d of %d layers with %s; dense: %s", len(pruned), len(layers), names, dense or "none")
        for layer in pruned:
            if layer.remark:
                log.info("%s, %s: %s", layer.name, layer.structure, layer.remark)


def line(record: Mapping[str, Any], epochs: int) -> str:
    """One epoch, for a person."""
    return (
        f"epoch {record['epoch'] + 1}/{epochs}: loss {record['train_loss']:.4f}, top-1 {record['eval_top1']:.2f} % "
        f"(train {record['train_top1']:.2f} %), zeros {100 * record['sparsity_true']:.2f} %, {record['seconds']:.1f} s, "
        + pace(record["images_per_second"], 1.0, record["data_wait"])
    )


class _Lines(logging.Handler):
    """Lines above a progress bar, never wrapped or coloured."""

    def __init__(self, console: Console):
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.print(record.getMessage(), soft_wrap=True, markup=False, highlight=False)


class _File(logging.FileHandler):
    """A disk that is full costs lines of the log, not pages of complaints on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


@contextmanager
def log_on_stderr(first: bool = True) -> Iterator[Console | None]:
    """Meanwhile the log and all warnings go to stderr: what the command line does, in the first of several processes."""
    console = Console(stderr=True) if first else None
    before, warnings.showwarning = warnings.showwarning, _warn
    try:
        with silence() if console is None else _handled(_Lines(console)):
            yield console
    finally:
        warnings.showwarning = before


@contextmanager
def silence() -> Iterator[None]:
    """Meanwhile the log goes nowhere."""
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


@contextmanager
def log_in(path: Path) -> Iterator[None]:
    """Meanwhile the log is appended to a file."""
    handler = _File(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    with contextlib.closing(handler), _handled(handler):
        yield


@contextmanager
def _handled(handler: logging.Handler) -> Iterator[None]:
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    log.warning("warning: %s", message)
