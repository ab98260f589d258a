"""Where trials run: processes here, Ray's machines, or Slurm's."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from campfire.errors import UnknownName
from campfire.sweep.engines.base import Engine

ENGINES = {
    "local": "campfire.sweep.engines.local:Local",
    "ray": "campfire.sweep.engines.on_ray:Ray",
    "slurm": "campfire.sweep.engines.on_slurm:Slurm",
}


def make(name: str, folder: Path, jobs: int | None, options: Mapping[str, Any]) -> Engine:
    """The engine of this name.

    Raises:
        UsageError: there is none, it does not know an option, or what it is built on is not installed.
    """
    if name not in ENGINES:
        raise UnknownName("engine", name, ENGINES)
    module, cls = ENGINES[name].split(":")
    return getattr(import_module(module), cls)(folder, jobs, options)
