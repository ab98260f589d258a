"""What an exit code and a run directory say together."""

import json
from pathlib import Path

import pytest

from campfire.sweep.outcome import Outcome, outcome, stamp


def say(folder: Path, state: str, code: int | None, reason: str = "") -> None:
    said = {"state": state, "exit_code": code, "reason": reason, "epoch": 2, "step": 20}
    (folder / "status.json").write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (0, ("done", 0, ""), Outcome("done", "", 20)),
        (1, ("failed", 1, "no room"), Outcome("died", "no room", 20)),
        (2, None, Outcome("failed", "the last words")),
        (3, ("diverged", 3, "the loss"), Outcome("diverged", "the loss", 20)),
        (1, ("diverged", 3, "the loss"), Outcome("diverged", "the loss", 20)),  # by torchrun
        (1, ("failed", 4, "a mask"), Outcome("failed", "a mask", 20)),
        (75, ("preempted", 75, "stopped"), Outcome("preempted", "stopped", 20)),
        (130, None, Outcome("preempted", "the last words")),
        (-9, ("running", None, ""), Outcome("died", "killed by SIGKILL", 20)),
        (1, None, Outcome("died", "the last words")),
        (120, None, Outcome("died", "the last words")),
    ],
)
def test_outcomes(code: int, said: tuple[str, int | None, str] | None, expected: Outcome, tmp_path: Path) -> None:
    (tmp_path / "output.txt").write_text("first\nthe last words\n\n")
    if said is not None:
        say(tmp_path, *said)
    assert outcome(code, tmp_path, before=0) == expected


def test_words_of_an_attempt_before_do_not_count(tmp_path: Path) -> None:
    say(tmp_path, "diverged", 3, "the loss")
    assert outcome(1, tmp_path, stamp(tmp_path)) == Outcome("died", "exit code 1", 20)
    assert outcome(1, tmp_path, 0).state == "diverged"
