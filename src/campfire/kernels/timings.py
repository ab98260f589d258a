"""Timings kept: in memory, and in one file that many processes share and that is never trusted.

What cannot be read, or does not look like times, is measured anew; what cannot be written is not kept.
"""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from campfire.native.loading import cache_folder

try:
    import fcntl
except ImportError:  # no such locks here: of two processes that write at once, one's timings are lost
    fcntl = None

FORMAT = "campfire-timings-1"
Entry = dict[str, Any]  # {"dense": ms, "ratios": {kernel: times faster}}

_memory: dict[Path, dict[str, Entry]] = {}


def find(key: str) -> Entry | None:
    """What was kept under a key, by this process or another."""
    return _known().get(key)


def keep(entries: Mapping[str, Entry]) -> None:
    """Remember these, in the file too where that can be written."""
    known, path = _known(), _path()
    known.update(entries)
    with contextlib.suppress(OSError), _lock(path):
        _write(path, {**_read(path), **entries})


def forget() -> None:
    """Drop what is in memory; files stay."""
    _memory.clear()


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
    return isinstance(ratios, dict) and all(map(_is_time, [entry.get("dense"), *ratios.values()]))


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
