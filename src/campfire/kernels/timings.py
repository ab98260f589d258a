"""Timings kept: in memory, and in one file that many processes share and that is never trusted.

What cannot be read, or does not look like times, is measured anew; what cannot be written is not kept. A timing that was
uncertain, or is old, serves the process that made it, and the next one measures anew: no bad day is kept for ever.
"""

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from campfire.native.loading import cache_folder

try:
    import fcntl
except ImportError:  # no such locks here: of two processes that write at once, one's timings are lost
    fcntl = None

FORMAT = "campfire-timings-2"
WIDE = 1.25  # times the rounds of one measurement may lie apart, by quartiles, before it counts as uncertain
LONG = 30 * 86400.0  # seconds, after which a machine may have become another
Entry = dict[str, Any]  # {"dense": ms, "ratios": {kernel: times faster}, "spread": times, "when": seconds since 1970}

_memory: dict[Path, dict[str, Entry]] = {}
_own: set[tuple[Path, str]] = set()  # what this process measured


def find(key: str) -> Entry | None:
    """What was kept under a key, by this process or another; None where it is to be measured anew."""
    entry = _known().get(key)
    return entry if entry is None or (_path(), key) in _own or _stands(entry) else None


def keep(entries: Mapping[str, Entry]) -> None:
    """Remember these, in the file too where that can be written; of two uncertain ones the less uncertain."""
    known, path = _known(), _path()
    entries = {key: _better(known.get(key), entry) for key, entry in entries.items()}
    known.update(entries)
    _own.update((path, key) for key in entries)
    with contextlib.suppress(OSError), _lock(path):
        _write(path, {**_read(path), **entries})


def forget() -> None:
    """Drop what is in memory; files stay."""
    _memory.clear()
    _own.clear()


def drop() -> int:
    """Drop what is in the file as well; returns how many timings that were.

    Raises:
        OSError: the file cannot be removed.
    """
    path = _path()
    count = len(_read(path))
    path.unlink(missing_ok=True)
    forget()
    return count


def _stands(entry: Entry) -> bool:
    return entry["spread"] <= WIDE and time.time() - entry["when"] < LONG


def _better(old: Entry | None, new: Entry) -> Entry:
    """The new one, unless the same was measured with less doubt not long ago."""
    if old is None or old["ratios"].keys() != new["ratios"].keys() or new["when"] - old["when"] > LONG:
        return new
    return new if _stands(new) or new["spread"] <= old["spread"] else old


def _known() -> dict[str, Entry]:
    path = _path()
    if path not in _memory:
        _memory[path] = _read(path)
    return _memory[path]


def _path() -> Path:
    return cache_folder() / "timings.json"


def _read(path: Path) -> dict[str, Entry]:
    """The entries that look like entries; none of a file that is damaged or of another kind."""
    try:
        told = json.loads(path.read_text())
        entries = told["entries"] if told["format"] == FORMAT else {}
        return {key: entry for key, entry in entries.items() if _is_entry(entry)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _is_entry(entry: Any) -> bool:
    ratios = entry.get("ratios") if isinstance(entry, dict) else None
    return isinstance(ratios, dict) and all(
        map(_is_time, [*map(entry.get, ("dense", "spread", "when")), *ratios.values()])
    )


def _is_time(number: Any) -> bool:
    return isinstance(number, float | int) and not isinstance(number, bool) and math.isfinite(number) and number > 0


def _write(path: Path, entries: Mapping[str, Entry]) -> None:
    """Whole or not at all, by renaming."""
    descriptor, part = tempfile.mkstemp(prefix="timings.part-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump({"format": FORMAT, "entries": entries}, file, indent=0, sort_keys=True)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        yield
