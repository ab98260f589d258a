"""How a trial ended: from the exit code of its program, and what its run directory says."""

import signal
from dataclasses import dataclass
from pathlib import Path

from campfire.sweep.launch import OUTPUT, status

# Exit codes of campfire train; with others, and after signals, it is worth another attempt.
STATES = {0: "done", 2: "failed", 3: "diverged", 4: "failed", 75: "preempted", 130: "preempted"}
DIED = "died"


@dataclass(frozen=True)
class Outcome:
    """``state`` is done, failed, diverged, preempted, or died: the last two are started again."""

    state: str
    reason: str = ""
    step: int = 0


def stamp(folder: Path) -> int:
    """When the run last said anything of itself."""
    try:
        return (folder / "status.json").stat().st_mtime_ns
    except OSError:
        return 0


def outcome(code: int, folder: Path, before: int) -> Outcome:
    """What became of a program that returned ``code``; ``before`` is the `stamp` from before it started.

    A launcher such as torchrun returns 1 for everything: then the run's own word counts, if it is of this attempt.
    """
    said = status(folder) if stamp(folder) != before else {}
    step = status(folder).get("step") or 0
    state = STATES.get(code)
    if state is None and said.get("exit_code") in STATES:
        state = STATES[said["exit_code"]]
    if state == "done":
        return Outcome(state, "", step)
    return Outcome(state or DIED, said.get("reason") or _last_words(code, folder), step)


def _last_words(code: int, folder: Path) -> str:
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    try:
        lines = (folder / OUTPUT).read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.strip()[:500] for line in reversed(lines) if line.strip()), f"exit code {code}")
