"""A last checkpoint that cannot be read or written: the one before it stands in, and the result is the same."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import assert_equal_runs, small

import campfire
from campfire.errors import CheckpointError, UsageError
from campfire.files import writing
from campfire.training import checkpoint, fallback, loop

HOLDER = (
    "import fcntl, sys; f = open(sys.argv[1], 'a+'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); input()"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: its last checkpoint is of epoch 4, the one before it of epoch 3."""
    return campfire.train(small(), output=tmp_path_factory.mktemp("whole") / "run").output


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def flip_a_bit_of_a_weight(path: Path) -> None:
    """What torch.load reads without a word."""
    data = bytearray(path.read_bytes())
    weight = torch.load(path, weights_only=True)["model"]["fc.weight"]
    at = data.index(weight.numpy().tobytes()[:32])
    data[at] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    """As if the process had died while one was put in the place of the other."""
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_bit_of_a_weight, cut, empty, remove])
def test_the_one_before_stands_in(damage, whole: Path, run: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert checkpoint.load(run / "previous.pt")["epoch"] == 3
    damage(run / "last.pt")
    campfire.train(small(), output=run, resume="auto")
    why = "gone" if damage is remove else "damaged"
    said = f"last.pt is {why}; going on from previous.pt, epoch 3, step 33"
    assert said in caplog.text
    assert said in (run / "log.txt").read_text()
    assert_equal_runs(run, whole)
    assert checkpoint.load(run / "previous.pt")["epoch"] == 3
    assert (run / "damaged.pt").exists() == (damage is not remove)


def test_it_is_said_where_another_directory_goes_on(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut(run / "last.pt")
    damaged = (run / "last.pt").read_bytes()
    campfire.train(small(), resume=run, output=tmp_path / "other")
    assert "last.pt is damaged; going on from previous.pt, epoch 3, step 33" in caplog.text
    assert (run / "last.pt").read_bytes() == damaged


def test_so_many_are_kept(run: Path, whole: Path) -> None:
    folder = loop.RunDirectory(run)
    for step, keep in enumerate((4, 4, 4, 4, 1, 3), 5):
        fallback.save(folder, {"step": step}, keep)
        kept = [checkpoint.load(path)["step"] for path in folder.generations]
        assert kept == {5: [5, 44, 33], 6: [6, 5, 44, 33], 7: [7, 6, 5, 44], 8: [8, 7, 6, 5], 9: [9], 10: [10, 9]}[step]
    assert not list(run.glob(".*"))
    folder.clear()
    assert not list(run.glob("*.pt"))


def test_a_run_being_cleared_never_passes_for_an_earlier_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newest, unlink = [], Path.unlink

    def killed_before(path: Path, missing_ok: bool = False) -> None:
        newest.append([p.name for p in folder.generations][:1])
        unlink(path, missing_ok)

    folder = loop.RunDirectory(run)
    monkeypatch.setattr(Path, "unlink", killed_before)
    folder.clear()
    assert newest[0] == ["last.pt"]
    assert all(names in (["last.pt"], []) for names in newest)


def test_the_third_stands_in_for_two(whole: Path, run: Path) -> None:
    (run / "previous.pt").rename(run / "previous-2.pt")
    for name in ("last.pt", "previous.pt"):
        (run / name).write_bytes((whole / "last.pt").read_bytes())
        flip_a_bit_of_a_weight(run / name)
    campfire.train(small(), output=run, resume=run)
    assert "going on from previous-2.pt, epoch 3, step 33" in (run / "log.txt").read_text()
    assert_equal_runs(run, whole)


def test_both_damaged_is_one_error_and_changes_nothing(run: Path) -> None:
    for name in ("last.pt", "previous.pt"):
        flip_a_bit_of_a_weight(run / name)
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(CheckpointError, match=r"last.pt is damaged: its checksums.* one before it: .*previous.pt is"):
        campfire.train(small(), output=run, resume="auto")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_a_checkpoint_that_was_named_is_not_exchanged(run: Path) -> None:
    flip_a_bit_of_a_weight(run / "last.pt")
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged: its checksums do not hold"):
        campfire.train(small(), resume=run / "last.pt")


def test_a_full_disk_ends_the_run_with_the_checkpoint_before(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    run, write = tmp_path / "run", checkpoint.save

    def save(path: Path, state: dict) -> None:
        if state["epoch"] == 3 and path.name == "last.pt":
            patched.setattr(writing, "beside", lambda path: path.with_name(f".{path.name}.full.tmp"))
            path.with_name(".last.pt.full.tmp").symlink_to("/dev/full")
        write(path, state)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save)
        with pytest.raises(OSError, match=r"No space left on device: .*last\.pt") as caught:
            campfire.train(small(), output=run)
    assert caught.value.errno == errno.ENOSPC
    assert checkpoint.load(run / "last.pt")["epoch"] == 2
    assert not list(run.glob(".*.tmp"))
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    campfire.train(small(), output=run, resume="auto")
    assert_equal_runs(run, whole)


def test_a_disk_so_full_that_the_status_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = loop.RunDirectory.write_status

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def status(folder: loop.RunDirectory, state: str, *rest: object) -> None:
        if state == "failed":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        write(folder, state, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(checkpoint.torch, "save", full)
    monkeypatch.setattr(loop.RunDirectory, "write_status", status)
    with pytest.raises(OSError, match="No space left on device"):
        campfire.train(small(), output=tmp_path / "run")


def test_two_processes_do_not_share_a_run_directory(run: Path) -> None:
    before = (run / "last.pt").read_bytes()
    command = [sys.executable, "-c", HOLDER, str(run / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for way in ({"resume": "auto"}, {"overwrite": True}):
            with pytest.raises(
                UsageError, match=r"run is in use by another process; wait for its end, or give another"
            ):
                campfire.train(small(), output=run, **way)
        other.communicate("\n")
    assert (run / "last.pt").read_bytes() == before
    campfire.train(small(), output=run, resume="auto")
