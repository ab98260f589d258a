"""What an engine is, and the one command that all of them start."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar, Protocol


class Handle(Protocol):
    """A trial that was started."""

    name: str  # by which the engine finds it again, in another process; "" where it cannot

    def poll(self) -> int | None:
        """The exit code of its program, negative for a signal; None while it runs or waits."""
        ...

    def stop(self) -> None:
        """Ask it to end after a checkpoint."""
        ...


class Engine(Protocol):
    """Starts trials."""

    jobs: ClassVar[int | None]  # trials at once unless told otherwise; None: as many as there are
    poll: ClassVar[float]  # seconds between two looks

    def start(self, folder: Path) -> Handle:
        """Start the trial in this run directory."""
        ...

    def find(self, name: str) -> Handle | None:
        """A trial that another sweep started and that still runs or waits, by its handle's name."""
        ...

    def close(self) -> None:
        """All trials have ended."""
        ...


def command(folder: Path | str, parent: int) -> list[str]:
    """What starts the trial in a run directory, and stops it when the process ``parent`` dies."""
    return [sys.executable, "-m", "campfire.sweep.launch", str(folder), str(parent)]


def run(folder: str) -> int:
    """Run a trial to its end, on the machine where this is called; returns its exit code.

    Interrupted by anything, it first waits for the trial, which is asked to stop after a checkpoint.
    """
    process = subprocess.Popen(command(folder, os.getpid()), start_new_session=True)
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=0.5)  # Ray interrupts between two instructions, not in a system call
    except BaseException:
        process.terminate()
        process.wait()
        raise
