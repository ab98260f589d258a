"""Trials as processes on this machine, which share its cores and its GPUs."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from campfire.errors import UnknownName
from campfire.sweep.engines.base import command


class Process:
    """A process, on GPUs if there are any."""

    name = ""

    def __init__(self, folder: Path, environment: dict[str, str], gpus: Sequence[str]):
        self.gpus = gpus
        more = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        self._process = subprocess.Popen(
            command(folder, os.getpid()),
            env={**environment, **more},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then stops its trials
        )

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        self._process.terminate()


class Local:
    """Processes here, ``jobs`` at once; they end with the sweep, after a checkpoint."""

    jobs = 1
    poll = 0.3

    def __init__(self, folder: Path, jobs: int | None, options: Mapping[str, Any]):
        for name in options:
            raise UnknownName("option of engine 'local'", name, ["(it has none)"])
        jobs = jobs or self.jobs
        self._environment = {"OMP_NUM_THREADS": str(max(1, _cores() // jobs)), **os.environ}
        self._gpus, self._started = gpus(), list[Process]()
        self._share = max(1, len(self._gpus) // jobs)  # torchrun can use several

    def start(self, folder: Path) -> Process:
        """A process in this run directory, on its share of the GPUs: on those that have the fewest."""
        self._started = [process for process in self._started if process.poll() is None]
        busy = [gpu for process in self._started for gpu in process.gpus]
        process = Process(folder, self._environment, sorted(self._gpus, key=busy.count)[: self._share])
        self._started.append(process)
        return process

    def find(self, name: str) -> None:
        """None: they end with their sweep."""

    def close(self) -> None:
        """Nothing is left to end."""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The NVIDIA GPUs that may be used here, by number or name."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in visible.split(",") if name.strip()]
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
