"""One run at a time in a directory; and a lock that nobody holds stops nobody."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import small

import campfire
from campfire.errors import UsageError
from campfire.training import starting
from campfire.training.locking import NAME, locked

HOLDER = """
import fcntl, os, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("process 7 on earth", file=file, end="", flush=True)
print("held", flush=True)
if os.fork():
    os.kill(os.getpid(), 9) if sys.stdin.readline() else None
sys.stdin.read()  # a worker that outlives its run
"""


def test_a_live_run_is_left_alone_and_a_dead_one_is_not(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(run / NAME)], text=True, **pipe)
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == "held\n"
    for how in ({}, {"overwrite": True}, {"resume": "auto"}):
        with pytest.raises(UsageError, match=r"run is in use by process 7 on earth; wait for"):
            campfire.train(small(), output=run, **how)
    assert [p.name for p in run.iterdir()] == [NAME]
    holder.stdin.write("die\n")
    holder.stdin.flush()
    assert holder.wait() == -9
    with locked(run):
        assert str(os.getpid()) in (run / NAME).read_text()
    assert list(run.iterdir()) == []
    holder.stdin.close()
    holder.stdout.close()


def test_twice_in_one_process(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "a" / "run"),
        pytest.raises(UsageError, match="in use by this very process"),
        locked(tmp_path / "a" / "." / "run"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_that_begin_in_the_same_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find the name free; who comes second takes another."""
    monkeypatch.chdir(tmp_path)
    names = iter([Path("runs/a"), Path("runs/a-2")])
    monkeypatch.setattr(starting, "fresh", lambda *_: next(names))
    with locked(Path("runs/a")):
        assert campfire.train(small(epochs=1, structure="dense")).output.name == "a-2"


def test_what_was_there_and_what_was_written_stays(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    with locked(tmp_path / "a" / "b"):
        (tmp_path / "a" / "file").touch()
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")] == ["a", "a/file"]


def test_a_lock_that_goes_while_one_waits_for_it_is_taken_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner deletes the file between open and lock: two runs must not lock two files of one name."""
    lockf, gone = fcntl.lockf, []

    def late(descriptor: int, how: int) -> None:
        lockf(descriptor, how)
        if not gone:
            gone.append((tmp_path / NAME).unlink())

    monkeypatch.setattr(fcntl, "lockf", late)
    with locked(tmp_path):
        assert (tmp_path / NAME).exists()


@pytest.mark.parametrize("below", ["file/run", "proc"])
def test_an_output_that_cannot_be_written_to(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    output = Path("/proc/campfire") if below == "proc" else tmp_path / below
    with pytest.raises(UsageError, match=r"cannot write in the output .*; give another --output"):
        campfire.train(small(), output=output)
