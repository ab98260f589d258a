"""A sweep under way: claims trials, starts them, and records how they end, until none is left."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campfire.config import from_tree, load, to_yaml
from campfire.sweep.engines.base import Engine, Handle
from campfire.sweep.give_up import GiveUp
from campfire.sweep.index import Index, Row
from campfire.sweep.launch import CONFIG, SPEC
from campfire.sweep.locks import Lock
from campfire.sweep.outcome import DIED, Outcome, outcome, stamp

log = logging.getLogger("campfire")
AGAIN = ("preempted", DIED)


@dataclass
class Work:
    """A trial that this process works on."""

    row: Row
    lock: Lock
    handle: Handle
    before: int  # the run's stamp when it was started
    given_up: str = ""  # why, once it was told to stop for good
    stopped: bool = False  # told to stop with the sweep


class Driver:
    """Works on the sweep of ``index`` until every trial has ended, beside other drivers if there are any.

    A trial that dies, or that somebody else stops, is started again, from its checkpoint; after ``retries`` such ends
    without a step of progress between them it has failed. ``stopping`` is asked between looks, every ``poll``
    seconds: once true, trials stop after a checkpoint.
    """

    def __init__(
        self,
        index: Index,
        engine: Engine,
        *,
        jobs: int | None = None,
        retries: int = 2,
        poll: float | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ):
        self.index, self.engine = index, engine
        self.jobs, self.retries, self.poll = jobs or engine.jobs, retries, poll or engine.poll
        self.stopping, self.works = stopping, list[Work]()
        meta = index.meta()
        self.cwd, self.command = meta["cwd"], meta["command"]
        self.give_up = None if meta["give_up"] is None else GiveUp(**meta["give_up"])

    def run(self) -> None:
        """Until every trial has ended, or `stopping`."""
        try:
            while not self.stopping():
                self._fill()
                if not self.works and all(row.ended for row in self.index.rows()):
                    break
                time.sleep(self.poll)
                self._reap()
        finally:
            self._stop()
            self.engine.close()

    def _fill(self) -> None:
        """Start what can be started."""
        while self.jobs is None or len(self.works) < self.jobs:
            self._skip()
            claimed = self.index.claim(self._ready)
            if claimed is None:
                return
            self.works.append(self._started(*claimed))

    def _ready(self, row: Row) -> bool:
        """Whether the checkpoint that a trial starts from is there, or one of its own, and it is not at work here."""
        if any(row.number == work.row.number for work in self.works):
            return False
        start = self._start(row)
        return start is None or start.exists() or self._has_begun(row)

    def _skip(self) -> None:
        """Record trials whose parent has ended without the checkpoint that they start from."""
        if not self._orphans():
            return
        with self.index.transaction():  # looked at again, for another sweep may have been here
            found = self._orphans()
            for row, why in found:
                self.index.set(row, "skipped", why)
        for row, why in found:
            log.info("%s skipped: %s", row.name, why)

    def _orphans(self) -> list[tuple[Row, str]]:
        rows = {row.name: row for row in self.index.rows()}
        found = []
        for row in rows.values():
            parent = rows.get(row.spec["parent"] or "")
            if row.state == "pending" and parent is not None and parent.ended and not self._ready(row):
                why = f"{parent.name} is {parent.state} and left no checkpoint after epoch {row.spec['epoch']}"
                found.append((row, f"{why}: {parent.reason}".rstrip(": ")))
        return found

    def _start(self, row: Row) -> Path | None:
        parent, epoch = row.spec["parent"], row.spec["epoch"]
        return None if parent is None else self.index.folder / parent / f"epoch-{epoch}.pt"

    def _has_begun(self, row: Row) -> bool:
        return any((self.index.folder / row.name / name).exists() for name in ("last.pt", "previous.pt"))

    def _started(self, row: Row, lock: Lock) -> Work:
        folder = self.index.folder / row.name
        self._write(row, folder)
        before = stamp(folder)
        handle = self.engine.find(row.handle) if row.handle else None
        if handle is None:
            handle = self.engine.start(folder)
            if handle.name:
                self.index.note_handle(row, handle.name)
        log.info("%s %s", row.name, f"again, start {row.starts + 1}" if row.starts else "started")
        return Work(row, lock, handle, before)

    def _write(self, row: Row, folder: Path) -> None:
        """What the trial's process reads."""
        start = self._start(row)
        told = {
            "key": row.key,
            "cwd": self.cwd,
            "command": self.command,
            "start": None if start is None else str(start),
        }
        config, _ = load(from_tree(row.spec["config"], CONFIG))
        _replace(folder / CONFIG, to_yaml(config))
        _replace(folder / SPEC, json.dumps(told))

    def _reap(self) -> None:
        """Record what has ended."""
        for work in list(self.works):
            folder = self.index.folder / work.row.name
            if (code := work.handle.poll()) is not None:
                self._record(work, outcome(code, folder, work.before))
            elif self.give_up is not None and not work.given_up and (why := self.give_up.reason(folder)):
                work.given_up = why
                work.handle.stop()

    def _record(self, work: Work, found: Outcome) -> None:
        state, reason, more = self._judged(work, found)
        with self.index.transaction():
            self.index.set(work.row, state, reason, handle="", **more)
        work.lock.release()
        self.works.remove(work)
        log.info(
            "%s %s%s", work.row.name, "to be started again" if state == "pending" else state, reason and f": {reason}"
        )

    def _judged(self, work: Work, found: Outcome) -> tuple[str, str, dict[str, Any]]:
        """State, reason, and columns to change."""
        if found.state not in AGAIN:
            return found.state, found.reason, {}
        if work.given_up:
            return "pruned", work.given_up, {}
        if work.stopped:
            return "pending", found.reason, {}
        row = work.row
        deaths = 1 if found.step > row.step else row.deaths + 1
        more = {"deaths": deaths, "step": found.step}
        if deaths > self.retries:
            return "failed", f"{found.reason} ({deaths} times without progress)", more
        return "pending", found.reason, more

    def _stop(self) -> None:
        """Ask all trials to stop, and record those that do, which is after a checkpoint."""
        for work in self.works:
            work.stopped = True
            work.handle.stop()
        while self.works:
            time.sleep(self.poll)
            self._reap()


def _replace(path: Path, text: str) -> None:
    """Write whole or not at all: a job that waits in a queue may read it at any time, and a sweep be killed."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
