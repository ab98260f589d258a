"""Sweeps that are killed: what was begun goes on from its checkpoints, and every trial is recorded once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from sweep_cases import SHARED, write

from campfire.sweep import Index, records


def begun(grid: Path, folder: Path, *flags: str) -> "subprocess.Popen[str]":
    """``campfire sweep`` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "campfire",
        "sweep",
        str(grid),
        "--output",
        str(folder),
        "--no-report",
        "--json",
        *flags,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def when(there: Path) -> None:
    while not there.exists():
        time.sleep(0.01)


def once_each(folder: Path, trials: int) -> None:
    """Every trial is done, was recorded as such once, and by nobody after that."""
    assert Counter(r.state for r in records(folder)) == {"done": trials}
    with Index.open(folder) as index:
        assert Counter(e.name for e in index.events() if e.state == "done") == {r.name: 1 for r in records(folder)}


def test_killed_and_resumed(tmp_path: Path) -> None:
    """A real training: after the kill it ends as one that was never disturbed."""
    config = {
        "data": {"source": "synthetic:images=64,size=16", "batch_size": 8},
        "model": {"name": "resnet8", "kwargs": {"width": 0.25}},
        "optim": {"epochs": 4},
        "compute": {"threads": 1},
    }
    grid, folder = write(tmp_path, {"base": config, "seeds": [1]}, stubs=False), tmp_path / "s"
    first = begun(grid, folder)
    when(folder / "run" / "last.pt")
    first.kill()
    first.wait()
    second = begun(grid, folder)
    told = json.loads(second.communicate()[0].splitlines()[-1])
    assert (second.returncode, told["states"]) == (0, {"done": 1})
    once_each(folder, 1)
    log = (folder / "run" / "log.txt").read_text()
    assert log.count("starting:") == 1
    assert "continuing at step" in log
    assert [json.loads(line)["epoch"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()] == [
        0,
        1,
        2,
        3,
    ]


def test_two_workers_killed_at_random(tmp_path: Path) -> None:
    grid, folder, chance = write(tmp_path, SHARED, epochs=4, pace=0.15), tmp_path / "s", random.Random(7)
    workers = [begun(grid, folder, "--jobs", "2") for _ in range(2)]
    for _ in range(3):
        time.sleep(chance.uniform(0.5, 1.5))
        workers[victim := chance.randrange(2)].kill()
        workers[victim].wait()
        workers[victim] = begun(grid, folder, "--jobs", "2")
    for worker in workers:
        assert json.loads(worker.communicate()[0].splitlines()[-1])["states"] == {"done": 6}
        assert worker.returncode == 0
    once_each(folder, 6)


def test_terminated(tmp_path: Path) -> None:
    grid, folder = write(tmp_path, {"seeds": [1]}, gate=str(tmp_path / "never")), tmp_path / "s"
    worker = begun(grid, folder)
    when(folder / "run" / "last.pt")
    worker.terminate()
    assert json.loads(worker.communicate()[0].splitlines()[-1])["states"] == {"pending": 1}
    assert worker.returncode == 75
    pid = int((folder / "run" / "attempts.txt").read_text().split()[0])
    assert not Path(f"/proc/{pid}").exists()


def test_a_trial_stops_with_its_sweep(tmp_path: Path) -> None:
    grid, folder = write(tmp_path, {"seeds": [1]}, gate=str(tmp_path / "never")), tmp_path / "s"
    worker = begun(grid, folder)
    when(folder / "run" / "last.pt")
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    pid = (folder / "run" / "attempts.txt").read_text().split()[0]
    while Path(f"/proc/{pid}/status").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.01)  # pytest's own time limit catches one that goes on
