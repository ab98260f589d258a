"""The record of a sweep: one row a trial in SQLite, changed in transactions, so that several processes may work on it.

A trial is claimed by locking a file in its run directory *and* marking its row. The lock goes with its process, so a
row that says ``running`` and whose lock is free belongs to a worker that died: the next one takes it over.
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campfire.errors import CampfireError, CheckpointError
from campfire.sweep.locks import Lock, try_lock, wait_lock

FILE = "sweep.db"
LIVE = ("pending", "running")
ENDED = ("done", "failed", "diverged", "pruned", "skipped")
CLAIM = ".claim"  # in a run directory: locked by the sweep that works on it
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    number INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, name TEXT UNIQUE NOT NULL, spec TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending', reason TEXT NOT NULL DEFAULT '', starts INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0, step INTEGER NOT NULL DEFAULT 0, handle TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, time REAL NOT NULL, worker INTEGER NOT NULL, state TEXT NOT NULL,
    reason TEXT NOT NULL);
"""
_COLUMNS = ("number", "key", "name", "spec", "state", "reason", "starts", "deaths", "step", "handle")


@dataclass(frozen=True)
class Row:
    """A trial in the index: ``spec`` is what the grid says, the rest what has become of it.

    ``deaths`` counts those without progress: since the last time that it died further on, at ``step``.
    """

    number: int
    key: str
    name: str
    spec: dict[str, Any]
    state: str
    reason: str
    starts: int
    deaths: int
    step: int
    handle: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Event:
    """A change of a trial's state: when, and the process that made it."""

    name: str
    time: float
    worker: int
    state: str
    reason: str


class Index:
    """The index of the sweep in ``folder``; a context manager."""

    def __init__(self, folder: Path, connection: sqlite3.Connection):
        self.folder, self._db = folder, connection

    @classmethod
    def create(cls, folder: Path) -> "Index":
        """The index in this directory, made if there is none.

        Raises:
            CampfireError: the directory cannot be written to, or has no room.
        """
        folder.mkdir(parents=True, exist_ok=True)
        making = wait_lock(folder / ".sweep.lock")  # two sweeps may begin at once
        try:
            index = cls(folder, _connect(folder, "rwc"))
            with _readable(folder):
                index._db.execute("PRAGMA journal_mode=WAL")
                index._db.executescript(_SCHEMA)
            return index
        finally:
            making.release()

    @classmethod
    def open(cls, folder: Path) -> "Index":
        """The index that is in this directory."""
        return cls(folder, _connect(folder, "rw"))

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing, and nobody else writes meanwhile."""
        with _readable(self.folder):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def rows(self) -> list[Row]:
        """All trials, in the order of the grid."""
        with _readable(self.folder):
            found = self._db.execute(f"SELECT {', '.join(_COLUMNS)} FROM trials ORDER BY number").fetchall()
            return [
                Row(**{**dict(zip(_COLUMNS, values, strict=True)), "spec": json.loads(values[3])}) for values in found
            ]

    def events(self) -> list[Event]:
        """Every change of state, in its order."""
        with _readable(self.folder):
            found = self._db.execute("SELECT name, time, worker, state, reason FROM events ORDER BY id").fetchall()
        return [Event(*values) for values in found]

    def meta(self) -> dict[str, Any]:
        """What holds for the whole sweep."""
        with _readable(self.folder):
            return {key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM meta")}

    def set_meta(self, **values: Any) -> None:
        """Add to what holds for the whole sweep, or change it."""
        pairs = [(key, json.dumps(value)) for key, value in values.items()]
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", pairs)

    def add(self, trials: Iterable[tuple[str, str, dict[str, Any]]]) -> None:
        """Add trials (key, name, spec), or change the spec of those that are there."""
        for key, name, spec in trials:
            self._db.execute(
                "INSERT INTO trials (key, name, spec) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET spec = ?",
                (key, name, *[json.dumps(spec)] * 2),
            )

    def claim(self, wanted: Callable[[Row], bool]) -> tuple[Row, Lock] | None:
        """The next trial that is wanted and nobody works on, marked as running, with its lock; None if there is none."""
        with self.transaction():
            live = [row for row in self.rows() if row.state in LIVE]
            for row in sorted(live, key=lambda r: (r.deaths, r.number)):
                if not wanted(row) or (lock := self._lock(row)) is None:
                    continue
                self.set(row, "running", "taken over" if row.state == "running" else "")
                self._db.execute("UPDATE trials SET starts = starts + 1 WHERE number = ?", (row.number,))
                return row, lock
        return None

    def _lock(self, row: Row) -> Lock | None:
        (self.folder / row.name).mkdir(exist_ok=True)
        return try_lock(self.folder / row.name / CLAIM)

    def set(self, row: Row, state: str, reason: str = "", **columns: Any) -> None:
        """Change a trial's state, and note that; part of a `transaction`."""
        more = "".join(f", {name} = ?" for name in columns)
        self._db.execute(
            f"UPDATE trials SET state = ?, reason = ?{more} WHERE number = ?",
            (state, reason, *columns.values(), row.number),
        )
        self._db.execute(
            "INSERT INTO events (name, time, worker, state, reason) VALUES (?, ?, ?, ?, ?)",
            (row.name, time.time(), os.getpid(), state, reason),
        )

    def note_handle(self, row: Row, handle: str) -> None:
        """Remember by what name an engine knows the trial's process."""
        with self.transaction():
            self._db.execute("UPDATE trials SET handle = ? WHERE number = ?", (handle, row.number))


def _connect(folder: Path, mode: str) -> sqlite3.Connection:
    with _readable(folder):
        address = f"{(folder / FILE).resolve().as_uri()}?mode={mode}"
        connection = sqlite3.connect(address, uri=True, timeout=60, isolation_level=None)
        connection.execute("PRAGMA synchronous=FULL")
    return connection


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """SQLite's errors as ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise CampfireError(f"the index {folder / FILE} cannot be used: {error}") from error
    except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"the index {folder / FILE} is damaged ({error}); move it away and start the sweep again: "
            "it finds what the run directories hold"
        ) from error
