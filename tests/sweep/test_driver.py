"""Trials that end well, die, diverge, are given up, and are stopped: what is recorded of them, and how often."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_cases import SHARED, attempts, sweep, write

from campfire.errors import UsageError
from campfire.sweep import Index, records
from campfire.sweep.retrying import retry

ONE = {"seeds": [0]}


def test_every_trial_is_done_once(tmp_path: Path) -> None:
    grid = write(tmp_path, {"product": {"sparsity": [0.5, 0.6]}, "seeds": [0, 1]})
    found = sweep(grid, tmp_path / "s", jobs=3)
    assert [(r.state, r.starts, attempts(r)) for r in found] == [("done", 1, 1)] * 4
    assert [r.values for r in found] == [
        {"pruning.sparsity": s, "run.seed": seed} for s, seed in itertools.product([0.5, 0.6], [0, 1])
    ]
    assert sweep(grid, tmp_path / "s") == found  # and nothing more when it is asked for again
    assert [attempts(r) for r in found] == [1] * 4


def test_the_dead_go_on_from_their_checkpoints(tmp_path: Path) -> None:
    grid = write(tmp_path, ONE, epochs=3, die={0: 1, 1: -9, 2: 137})
    (found,) = sweep(grid, tmp_path / "s", retries=1)
    assert (found.state, found.starts, attempts(found)) == ("done", 4, 4)
    with Index.open(tmp_path / "s") as index:
        said = [(e.state, e.reason) for e in index.events()]
    assert [s for s, _ in said] == ["running", "pending"] * 3 + ["running", "done"]
    assert [r for s, r in said if s == "pending"] == [
        "this is the end, with 1",
        "killed by SIGKILL",
        "this is the end, with 137",
    ]


@pytest.mark.parametrize("code", [1, 75])
def test_ends_without_progress_are_counted(code: int, tmp_path: Path) -> None:
    (found,) = sweep(write(tmp_path, ONE, end={2: code}), tmp_path / "s", retries=2)
    assert (found.state, found.reason, attempts(found)) == (
        "failed",
        f"this is the end, with {code} (3 times without progress)",
        3,
    )


def test_a_trial_may_be_preempted_as_often_as_it_comes_further(tmp_path: Path) -> None:
    (found,) = sweep(write(tmp_path, ONE, epochs=4, die=dict.fromkeys(range(4), 75)), tmp_path / "s", retries=1)
    assert (found.state, found.starts) == ("done", 5)


@pytest.mark.parametrize(("code", "state"), [(2, "failed"), (3, "diverged"), (4, "failed")])
def test_what_would_happen_again_is_not_repeated(code: int, state: str, tmp_path: Path) -> None:
    (found,) = sweep(write(tmp_path, ONE, end={1: code}), tmp_path / "s")
    assert (found.state, attempts(found)) == (state, 1)
    assert found.reason


def test_given_up(tmp_path: Path) -> None:
    grid = write(tmp_path, {**ONE, "give_up": {"epoch": 2, "top1": 30}}, epochs=50, pace=0.2)
    (found,) = sweep(grid, tmp_path / "s")
    assert (found.state, found.reason) == ("pruned", "top-1 20.00 % after epoch 2, below 30 %")
    grid = write(tmp_path, {**ONE, "give_up": {"epoch": 2, "top1": 20}})
    assert sweep(grid, tmp_path / "t")[0].state == "done"


def test_stopped_and_continued(tmp_path: Path) -> None:
    gate, folder = tmp_path / "gate", tmp_path / "s"
    grid = write(tmp_path, SHARED, epochs=4, gate=str(gate))
    begun = [folder / f"dense-seed{i}" / "last.pt" for i in (0, 1)]
    found = sweep(grid, folder, jobs=2, stopping=lambda: all(path.exists() for path in begun))
    assert {r.state for r in found} == {"pending"}
    assert [bool(r.starts) for r in found] == [True, True, False, False, False, False]
    write(tmp_path, SHARED, epochs=4, gate="another")  # is another trial
    with pytest.raises(UsageError, match=r"6 of its trials are not in this one .* 6 trials of this one are new"):
        sweep(grid, folder)
    gate.touch()
    found = sweep(write(tmp_path, SHARED, epochs=4, gate=str(gate)), folder, jobs=4)
    assert [r.state for r in found] == ["done"] * 6
    assert [attempts(r) for r in found] == [2, 2, 1, 1, 1, 1]


def test_a_stop_is_no_death(tmp_path: Path) -> None:
    """Stopped before its program can answer: SIGTERM then kills it, and that is not held against it."""
    gate, folder = tmp_path / "gate", tmp_path / "s"
    grid = write(tmp_path, ONE, gate=str(gate))
    sweep(grid, folder, retries=0, stopping=lambda: folder.joinpath("run", "trial.json").exists())
    gate.touch()
    (found,) = sweep(grid, folder, retries=0)
    assert (found.state, found.starts) == ("done", 2)


def test_retry(tmp_path: Path) -> None:
    grid, folder = write(tmp_path, SHARED, end={0: 2}), tmp_path / "s"
    assert [r.state for r in sweep(grid, folder, jobs=4)] == ["failed"] * 2 + ["skipped"] * 4
    with pytest.raises(UsageError, match="no trial is called 'dense-seed2'; did you mean 'dense-seed"):
        retry(folder, ["dense-seed2"])
    assert len(retry(folder)) == 6
    with pytest.raises(UsageError, match="dense-seed0 is pending; a trial can be tried again once it has ended"):
        retry(folder, ["dense-seed0"])
    (folder / "dense-seed0" / "last.pt").write_text('{"epoch": 2}')  # past what went wrong
    (folder / "dense-seed0" / "epoch-1.pt").write_text('{"epoch": 2}')
    found = sweep(grid, folder, jobs=4)
    assert [r.state for r in found] == ["done", "failed", "done", "skipped", "done", "skipped"]
    with pytest.raises(UsageError, match="dense-seed0 is done; --fresh deletes its run"):
        retry(folder, ["dense-seed0"])
    assert retry(folder, ["sparse-ck-seed0"], fresh=True) == ["sparse-ck-seed0"]
    assert [p.name for p in found[2].path.iterdir()] == [".claim"]
    assert sweep(grid, folder)[2].state == "done"


def test_what_may_not_be_deleted_leaves_all_of_it(tmp_path: Path) -> None:
    grid, folder = write(tmp_path, {"seeds": [0, 1]}), tmp_path / "s"
    sweep(grid, folder)
    retry(folder, ["seed1"], fresh=True)
    with pytest.raises(UsageError, match="seed1 is pending"):
        retry(folder, ["seed0", "seed1"], fresh=True)
    assert (folder / "seed0" / "summary.json").exists()
    assert records(folder)[0].state == "done"


def test_a_killed_retry_leaves_nothing_that_passes_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid, folder = write(tmp_path, ONE), tmp_path / "s"
    (before,) = sweep(grid, folder)
    unlink, gone = Path.unlink, []

    def killed(self: Path, missing_ok: bool = False) -> None:
        if self.parent == before.path and len(gone) == 2:
            raise KeyboardInterrupt
        gone.append(self.name)
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        retry(folder, ["run"], fresh=True)
    monkeypatch.undo()
    assert gone == ["status.json", "last.pt"]
    (after,) = sweep(grid, folder)
    assert (after.state, attempts(after)) == ("done", 2)


def test_what_a_trial_reads_is_whole_when_its_sweep_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that waits in a queue may read it while the next sweep writes it anew."""
    grid, folder = write(tmp_path, ONE), tmp_path / "s"
    sweep(grid, folder)
    retry(folder, ["run"], fresh=True)
    sweep(grid, folder, stopping=lambda: True)
    (folder / "run" / "trial.json").write_text('{"key": "as it was"}')

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        sweep(grid, folder)
    assert (folder / "run" / "trial.json").read_text() == '{"key": "as it was"}'


def test_a_lost_index_is_made_anew(tmp_path: Path) -> None:
    grid, folder = write(tmp_path, {"seeds": [0, 1]}), tmp_path / "s"
    sweep(grid, folder)
    for path in folder.glob("sweep.db*"):
        path.unlink()
    assert [(r.state, attempts(r)) for r in sweep(grid, folder)] == [("done", 1)] * 2
    for path in folder.glob("sweep.db*"):
        path.unlink()
    other = write(tmp_path, {"seeds": [0, 1]}, epochs=4)
    with pytest.raises(UsageError, match="holds a run that is not of this sweep"):
        sweep(other, folder)


def test_where_no_sweep_can_be(tmp_path: Path) -> None:
    grid = write(tmp_path, ONE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "status.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a run; give the sweep a directory of its own"):
        sweep(grid, tmp_path / "run")
    with pytest.raises(UsageError, match="is a file; give a directory"):
        sweep(grid, grid)
    with pytest.raises(UsageError, match="holds no sweep"):
        records(tmp_path / "run")


def test_a_program_that_outlives_its_sweep_is_waited_for(tmp_path: Path) -> None:
    """The next one finds the lock taken, and then the work done."""
    (found,) = sweep(write(tmp_path, ONE, epochs=4, pace=0.1), tmp_path / "s")
    for name in ("status.json", "last.pt"):
        (found.path / name).unlink()
    command = [sys.executable, "-m", "campfire.sweep.launch", str(found.path), str(os.getpid())]
    assert [process.wait() for process in [subprocess.Popen(command), subprocess.Popen(command)]] == [0, 0]
    assert attempts(found) == 2


def test_a_sweep_takes_over_what_a_dead_one_left(tmp_path: Path) -> None:
    grid, folder = write(tmp_path, ONE), tmp_path / "s"
    code = "import sys, os; from sweep_cases import *; from campfire.sweep.engines import local\n"
    code += "local.Local.start = lambda self, folder: os._exit(9)\n"
    code += f"sweep(Path({str(grid)!r}), Path({str(folder)!r}))"
    here = Path(__file__).parent
    assert subprocess.run([sys.executable, "-c", code], cwd=here, check=False).returncode == 9
    assert records(folder)[0].state == "running"
    assert sweep(grid, folder)[0].state == "done"
    with Index.open(folder) as index:
        assert [(e.state, e.reason) for e in index.events()] == [
            ("running", ""),
            ("running", "taken over"),
            ("done", ""),
        ]
