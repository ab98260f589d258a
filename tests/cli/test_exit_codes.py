"""What the shell sees of a run that did not end well."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from campfire import cli
from campfire.training.loop import Training

ARGV = ["train", "synthetic:images=64,size=16", "--model", "resnet8", "--model-kwargs", "width=0.25", "-b", "16"]


def state(output: Path) -> tuple[str, int]:
    status = json.loads((output / "status.json").read_text())
    return status["state"], status["exit_code"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_signals(
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    step = Training._step

    def signalled(self: Training, *args: Any) -> None:
        step(self, *args)
        os.kill(os.getpid(), number)

    monkeypatch.setattr(Training, "_step", signalled)
    assert cli.main([*ARGV, "--json", "--output", str(tmp_path)]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"campfire train: stopped by {number.name}; continue with --resume\n")
    assert state(tmp_path) == ("preempted", code)


def test_divergence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--lr", "1e30", "--warmup-epochs", "0", "--epochs", "3"]
    assert cli.main([*ARGV, *flags, "--output", str(tmp_path)]) == 3
    assert "campfire train: the loss is no finite number any more" in capsys.readouterr().err
    assert state(tmp_path) == ("diverged", 3)


def test_a_damaged_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "last.pt").write_bytes(b"PK half")
    assert cli.main([*ARGV, "--resume", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_another_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "status.json").write_text("{}")
    assert cli.main([*ARGV, "--output", str(tmp_path)]) == 2
    assert "holds another run (status.json)" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]
