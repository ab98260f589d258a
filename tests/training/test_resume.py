"""A run that was stopped anywhere, by anything, and resumed ends with the same bits as one that was not."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from training_runs import SMALL, assert_equal_runs, assert_same, records, small

import campfire
from campfire.attack.record import FORMAT, accuracy
from campfire.files.writing import left
from campfire.training import Interrupted, Preempted, checkpoint, fallback
from campfire.training.build import build
from campfire.training.loop import Training
from campfire.training.run_directory import RunDirectory
from campfire.training.state import restore

# 1,437 training digits in batches of 128: 11 steps an epoch; the era runs from step 11 to the last step of epoch 3.
STEPS = 11
STEP = Training._step


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after_step(number: int) -> None:
    def stepped(self: Training) -> None:
        STEP(self)
        if self.at.step == number:
            die()

    Training._step = stepped


def while_writing(epoch: int) -> None:
    save = torch.save

    def half(state: dict[str, Any], file: IO[bytes]) -> None:
        if state["epoch"] == epoch:
            save({"half": state["model"]}, file)
            file.flush()
            die()
        save(state, file)

    torch.save = half


def after_history(length: int) -> None:
    write = RunDirectory.write_history

    def written(self: RunDirectory, records: list[dict[str, Any]]) -> None:
        write(self, records)
        if len(records) == length:
            die()

    RunDirectory.write_history = written


def train_until(dead: Callable[[int], None], when: int, output: Path) -> None:
    """The work of a process that kills itself at a chosen place."""
    dead(when)
    campfire.train(output=output, resume="auto", **SMALL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    return campfire.train(small(), output=tmp_path_factory.mktemp("whole") / "run").output


def killed(output: Path, how: Callable[[int], None], when: int) -> None:
    process = multiprocessing.get_context("forkserver").Process(target=train_until, args=(how, when, output))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_killed_at_every_kind_of_moment(whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    killed(output, after_step, 4)  # before there is any checkpoint
    killed(output, after_step, STEPS + 5)  # in the era
    assert len(records(output)) == 1
    killed(output, while_writing, 2)
    assert left(output / "last.pt")
    killed(output, after_history, 3)  # between epochs, the record written and the checkpoint not
    killed(output, after_step, 3 * STEPS + 1)  # the era's last update
    killed(output, after_step, 4 * STEPS)  # the last step of all
    assert json.loads((output / "status.json").read_text())["state"] == "running"
    campfire.train(small(), output=output, resume="auto")
    assert not left(output / "last.pt")
    assert_equal_runs(output, whole)
    assert [r["epoch"] for r in records(output)] == [0, 1, 2, 3]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Send this process a signal during a step."""
    original = Training._backward

    def backward(self: Training, *args: Any) -> None:
        original(self, *args)
        if self.at.step == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Training, "_backward", backward)


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (signal.SIGTERM, Preempted, 75),
        (signal.SIGUSR1, Preempted, 75),
        (signal.SIGINT, Interrupted, 130),
    ],
)
def test_a_signal_stops_after_the_step_with_a_checkpoint(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    error: type[Preempted],
    code: int,
) -> None:
    output = tmp_path / "run"
    with monkeypatch.context() as patched:
        stop_at(patched, 2 * STEPS + 6, number)
        with pytest.raises(error, match=f"stopped by {number.name}") as caught:
            campfire.train(small(), output=output)
    assert caught.value.exit_code == code
    status = json.loads((output / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["step"]) == ("preempted", code, 2 * STEPS + 7)
    assert checkpoint.load(output / "last.pt")["batch"] == 7
    campfire.train(small(), output=output, resume="auto")
    assert_equal_runs(output, whole)


def test_a_signal_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    stop_at(monkeypatch, 3, signal.SIGTERM)
    monkeypatch.setattr(fallback, "save", full)
    with pytest.raises(OSError, match="No space left"):
        campfire.train(small(), output=tmp_path / "run")
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert "No space left" in status["reason"]


def test_a_signal_while_evaluating(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "run"
    original = Training._measure

    def measure(self: Training) -> Any:
        if self.at.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_measure", measure)
        with pytest.raises(Preempted):
            campfire.train(small(), output=output)
    assert len(records(output)) == 1
    campfire.train(small(), output=output, resume="auto")
    assert_equal_runs(output, whole)


@pytest.mark.parametrize(
    "flags",
    [
        {"opt": "adamw", "grad_accum_steps": 3, "model_ema": True, "model_ema_decay": 0.9},
        {"era_by": "step", "era_length": 1.7, "score": "taylor", "structure": "combined", "channels_last": False},
        {"structure": "window", "rules": {"layer1.*": "2:4", "fc": "fine-fc"}, "score": "random", "clip_grad": 1.0},
        {"method": "iterative", "allocation": "erk", "smoothing": 0.1, "sched": "onecycle"},
        {"amp": True, "opt": "adam", "structure": "dense"},
        {"model": "training_runs:dropout_net", "model_kwargs": {}, "structure": "vector"},
        {
            "amp": True,
            "amp_dtype": "float16",
            "data": "synthetic:images=128,size=16",
            "batch_size": 32,
            "sched": "step",
            "structure": "inter-epoch",
            "era_start": 0,
            "era_length": 3,
        },
    ],
    ids=lambda flags: "-".join(map(str, flags)),
)
def test_every_part_resumes(flags: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = campfire.train(small(**flags), output=tmp_path / "whole").output
    output = tmp_path / "run"
    per_epoch = build(small(**flags)).steps_per_epoch
    with monkeypatch.context() as patched:
        stop_at(patched, 2 * per_epoch + 1, signal.SIGTERM)
        with pytest.raises(Preempted):
            campfire.train(small(**flags), output=output)
    campfire.train(small(**flags), output=output, resume="auto")
    assert_equal_runs(output, whole)


def test_recovery_interval_writes_inside_an_epoch(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "run"

    def crash(self: Training) -> Any:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(Training, "_measure", crash)
        with pytest.raises(OSError, match="gone"):
            campfire.train(small(recovery_interval=5), output=output)
    assert checkpoint.load(output / "last.pt")["batch"] == 10
    assert json.loads((output / "status.json").read_text())["state"] == "failed"
    campfire.train(small(), output=output, resume="auto")
    assert_equal_runs(output, whole)


def test_resuming_a_finished_run_changes_nothing(whole: Path, tmp_path: Path) -> None:
    output = campfire.train(small(), output=tmp_path / "run").output
    again = campfire.train(small(), resume=output)
    assert again.output == output
    assert_equal_runs(output, whole)


def test_what_begins_on_a_dense_training_counts_its_steps(tmp_path: Path) -> None:
    """Masks change every second step: the same ones as where the pruner was there from the first step on."""
    pruned = {"structure": "ck", "update_interval": 2, "era_by": "step", "epochs": 3, "era_start": 1, "era_length": 1.5}
    alone = campfire.train(small(**pruned), output=tmp_path / "alone").output
    dense = campfire.train(small(structure="dense", epochs=3, keep_epochs=(1,)), output=tmp_path / "dense").output
    start = {"resume": dense / "epoch-1.pt", "allow_config_change": True}
    begun = campfire.train(small(**pruned), output=tmp_path / "begun", **start).output
    ours, theirs = (checkpoint.load(run / "last.pt") for run in (begun, alone))
    assert_same(ours["model"], theirs["model"], "model")
    assert_same(ours["pruner"], theirs["pruner"], "pruner")


def test_what_begins_inside_an_epoch_knows_where(whole: Path) -> None:
    saved = checkpoint.load(whole / "last.pt") | {"pruner": None, "epoch": 1, "batch": 5, "step": STEPS + 5}
    parts = build(small())
    restore(parts, saved, "last.pt")
    assert parts.pruner is not None
    assert (parts.pruner.epoch, parts.pruner.steps) == ((STEPS + 5) / STEPS, STEPS + 5)


def test_attacks_on_other_weights_are_forgotten(whole: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    found = {"format": FORMAT, "clean": accuracy(9, 10), "results": []}
    (run / "attack.json").write_text(json.dumps(found))
    campfire.train(small(), resume=run)  # ended already
    assert (run / "attack.json").exists()
    campfire.train(small(epochs=5), resume=run, allow_config_change=True)
    assert not (run / "attack.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_killed_at_random_moments(whole: Path, tmp_path: Path, seed: int) -> None:
    chance, output = random.Random(seed), tmp_path / "run"
    flags = ["--output", str(output), "--resume", "--recovery-interval", "3", "--config", str(whole / "config.yaml")]
    for _ in range(4):
        command = [sys.executable, "-m", "campfire", "train", *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for_change(output / "status.json", process)
        time.sleep(chance.random() * 0.25)
        process.kill()
        process.wait()
    campfire.train(small(), output=output, resume="auto")
    assert_equal_runs(output, whole)


def _wait_for_change(file: Path, process: subprocess.Popen[bytes]) -> None:
    """Until a file is written, or the process is over."""

    def stamp() -> int:
        return file.stat().st_mtime_ns if file.exists() else 0

    before, end = stamp(), time.monotonic() + 60
    while stamp() == before and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
