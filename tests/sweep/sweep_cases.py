"""Sweeps of stub trials, in this process."""

import sys
from pathlib import Path
from typing import Any

import yaml
from stub_trial import __file__ as stub

from campfire.sweep import Driver, Record, read_grid, records
from campfire.sweep.engines import make
from campfire.sweep.settling import settle

COMMAND = [sys.executable, str(stub)]
SHARED = {  # the sparse trials of a seed start from its dense trial
    "seeds": [0, 1],
    "groups": {"dense": {"list": [{"structure": "dense"}]}, "sparse": {"from": "dense", "product": {"structure": ["ck", "window"]}}},
}  # fmt: skip


def write(folder: Path, grid: Any, *, stubs: bool = True, epochs: int = 3, **orders: Any) -> Path:
    """A grid's file; ``orders`` are for the stub trials, all of them."""
    if stubs:
        base = {"optim": {"epochs": epochs}, "model": {"kwargs": orders}}
        grid = {"command": COMMAND, "base": base, **grid}
    path = folder / "grid.yaml"
    path.write_text(grid if isinstance(grid, str) else yaml.safe_dump(grid))
    return path


def sweep(grid: Path, folder: Path, *, engine: str = "local", options: Any = None, **keywords: Any) -> list[Record]:
    """Work on the sweep until it has ended; its records."""
    with settle(folder, read_grid(grid)) as index:
        made = make(engine, folder, keywords.get("jobs"), options or {})
        Driver(index, made, poll=0.02, **keywords).run()
    return records(folder)


def attempts(record: Record) -> int:
    """How often the trial's program began."""
    path = record.path / "attempts.txt"
    return len(path.read_text().splitlines()) if path.exists() else 0
