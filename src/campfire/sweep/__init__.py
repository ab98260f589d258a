"""Many runs from one grid: expanded, claimed, started, retried and recorded, by one process or several.

    grid.yaml -> `read_grid` -> trials -> `Index` (SQLite) <- `Driver` -> an engine -> ``campfire train`` in run directories

What others read is `records`: one `Record` a trial, with its run directory, what the grid says of it, and its state.
A sweep starts programs and reads their files: nothing here imports torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "Driver": "campfire.sweep.driver",
    "Grid": "campfire.sweep.grid",
    "Index": "campfire.sweep.index",
    "Record": "campfire.sweep.record",
    "is_sweep": "campfire.sweep.record",
    "read_grid": "campfire.sweep.grid",
    "records": "campfire.sweep.record",
}

if TYPE_CHECKING:
    from campfire.sweep.driver import Driver as Driver
    from campfire.sweep.grid import Grid as Grid
    from campfire.sweep.grid import read_grid as read_grid
    from campfire.sweep.index import Index as Index
    from campfire.sweep.record import Record as Record
    from campfire.sweep.record import is_sweep as is_sweep
    from campfire.sweep.record import records as records

__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:  # lazily: `campfire.sweep.launch` starts every trial, and needs none of this
    if name not in _HOME:
        raise AttributeError(f"module 'campfire.sweep' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
