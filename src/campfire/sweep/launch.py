"""What starts a trial, on whatever machine: ``python -m campfire.sweep.launch RUN_DIRECTORY PARENT_PROCESS``.

It waits until nobody else works in the directory, and becomes the trial's program, which inherits the lock. A program
whose sweep dies is asked to stop (SIGTERM: after a checkpoint). Only the standard library is imported here.
"""

import ctypes
import fcntl
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPEC = "trial.json"  # what the sweep says to its trial: command, working directory, start
CONFIG = "trial.yaml"
RUNNING = ".running"  # locked while the trial's program lives
OUTPUT = "output.txt"  # what it prints


def main(argv: Sequence[str]) -> int:
    """Become the trial, unless it is done."""
    folder, parent = Path(argv[0]), int(argv[1])
    _stop_with(parent)
    if "SUBMITIT_EXECUTOR" in os.environ:
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # Slurm's warning to the whole job; submitit answers it
    _hold(folder / RUNNING)
    if state(folder) == "done":  # by a program that outlived its sweep
        return 0
    spec = json.loads((folder / SPEC).read_text())
    words = [*(spec["command"] or train()), *arguments(folder, spec["start"])]
    _print_to(folder / OUTPUT)
    os.chdir(spec["cwd"])
    os.execvp(words[0], words)


def train() -> list[str]:
    """What a trial is, unless the grid says otherwise."""
    return [sys.executable, "-m", "campfire", "train"]


def arguments(folder: Path, start: str | None) -> list[str]:
    """The arguments of a trial's command: its configuration, its directory, and where it goes on."""
    given = ["--config", str(folder / CONFIG), "--output", str(folder), "--json"]
    own = any((folder / name).exists() for name in ("last.pt", "previous.pt"))
    if own or start is None:
        return [*given, "--resume", "auto", "--overwrite"]  # what retry --fresh was killed over may still be there
    return [*given, "--resume", start, "--allow-config-change", "--overwrite"]


def status(folder: Path) -> dict[str, Any]:
    """What the run says of itself in ``status.json``; {} before it says anything."""
    try:
        found = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def state(folder: Path) -> str | None:
    """The state that the run says it is in."""
    return status(folder).get("state")


def _stop_with(parent: int) -> None:
    """Ask Linux for SIGTERM when the parent dies; elsewhere the program runs on, and its lock keeps others away."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG; kept by exec
        if os.getppid() != parent:
            sys.exit(75)


def _hold(path: Path) -> None:
    """Lock the file for as long as this program, or what it becomes, lives."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    os.set_inheritable(descriptor, True)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        print(f"{path} cannot be locked ({error}); see that no other program writes there", file=sys.stderr)


def _print_to(path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
