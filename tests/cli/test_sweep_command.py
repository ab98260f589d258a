"""``campfire sweep`` and its further commands, as a shell sees them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from campfire import cli
from campfire.cli.sweep import _check, main
from campfire.sweep import Index, read_grid

STUB = Path(__file__).parent.parent / "sweep" / "stub_trial.py"


def grid(folder: Path, body: Any = None, **orders: Any) -> str:
    """A grid of stub trials, or of ``body`` alone."""
    base = {"optim": {"epochs": 2}, "model": {"kwargs": orders}}
    stubs = {"command": [sys.executable, str(STUB)], "base": base, "product": {"sparsity": [0.5, 0.6]}, "seeds": [0, 1]}
    (folder / "g.yaml").write_text(yaml.safe_dump(stubs if body is None else body))
    return str(folder / "g.yaml")


def last(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_sweep_and_what_is_told_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([grid(tmp_path), "--jobs", "4", "--no-report"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == ["sparsity", "top-1", "%", "+-", "zeros", "trials"]
    assert out.splitlines()[1].split() == ["0.5", "90.50", "0.71", "0.5000", "2", "done"]
    assert "runs/g: 4 trials: 4 done" in out
    assert err.count("started\n") == err.count("done\n") == 4
    assert main(["status", "runs/g"]) == 0
    assert "4 trials: 4 done" in capsys.readouterr().out
    assert main(["table", "runs/g", "--each", "--json"]) == 0
    rows = last(capsys)["rows"]
    assert [row["top1"] for row in rows] == [90.0, 91.0, 90.0, 91.0]
    assert rows[1]["values"] == {"run.seed": 1, "pruning.sparsity": 0.5}
    assert main(["runs/g", "--no-report", "--json"]) == 0  # nothing is left to do
    assert last(capsys)["states"] == {"done": 4}


@pytest.mark.parametrize(("code", "state", "returned"), [(2, "failed", 1), (3, "diverged", 3)])
def test_exit_codes(code: int, state: str, returned: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "s")
    assert main([grid(tmp_path, end={1: code}), "--output", output, "--jobs", "4", "--json"]) == returned
    told = last(capsys)
    assert (told["states"], told["report"]) == ({state: 4}, None)
    assert main(["status", output]) == 0
    assert f"  {state}  sparsity0.5-seed0  " in capsys.readouterr().out
    assert main(["retry", output, "sparsity0.5-seed0", "--json"]) == 0
    assert last(capsys)["trials"] == ["sparsity0.5-seed0"]
    assert main(["status", output, "--json"]) == 0
    assert [t["state"] for t in last(capsys)["trials"]] == ["pending", state, state, state]


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = {"dense": {"list": [{"structure": "dense"}]}, "sparse": {"from": "dense"}}
    assert main([grid(tmp_path, {"groups": groups}), "--output", str(tmp_path / "s"), "--dry-run"]) == 0
    assert capsys.readouterr().out == "2 trials\n  dense\n  sparse  from dense, epoch 6\n"
    assert [p.name for p in tmp_path.iterdir()] == ["g.yaml"]


BAD = {
    "structure": (
        {"product": {"structure": ["ck", "windwo"]}},
        "no structure is called 'windwo'; did you mean 'window'?",
    ),
    "method": ({"product": {"method": ["gradul"]}}, "no method is called 'gradul'; did you mean 'gradual'?"),
    "model": ({"base": {"model": {"name": "resnet21"}}}, "resnet21"),
    "axis": ({"product": {"lr": []}}, "product: lr: needs a list of one value or more; got []"),
    "key": ({"product": {"lrr": [1]}}, "no option is called 'lrr'; did you mean 'lr'?"),
}


@pytest.mark.parametrize(("body", "message"), BAD.values(), ids=BAD)
def test_bad_grids_are_refused_before_anything_runs(
    body: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", grid(tmp_path, body), "--output", str(tmp_path / "s")]) == 2
    assert message in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["g.yaml"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine", "slrum"], "invalid choice: 'slrum'"),
        (["--jobs", "0"], "--jobs is 1 or more"),
        (["--engine-options", "cpus=2"], "no option of engine 'local' is called 'cpus'"),
        (
            ["--engine", "ray", "--engine-options", "cpu=2"],
            "no option of engine 'ray' is called 'cpu'; did you mean 'cpus'?",
        ),
    ],
)
def test_bad_flags(flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", grid(tmp_path), "--output", str(tmp_path / "s"), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_refused_sweep_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s" / "dense").mkdir(parents=True)
    (tmp_path / "s" / "dense" / "status.json").write_text("{}")
    body = {"groups": {"dense": {"list": [{"structure": "dense"}]}, "sparse": {"from": "dense"}}}
    assert cli.main(["sweep", grid(tmp_path, body), "--output", str(tmp_path / "s")]) == 2
    assert "holds a run that is not of this sweep" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["dense"]


def test_a_sweep_that_was_killed_before_it_knew_its_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Index.create(tmp_path / "s").__exit__()
    assert cli.main(["sweep", str(tmp_path / "s")]) == 2
    assert "knows no trials yet; give its grid" in capsys.readouterr().err
    assert main([grid(tmp_path), "--output", str(tmp_path / "s"), "--jobs", "4", "--no-report"]) == 0


def test_rules_are_left_to_the_network_that_suits_the_images(tmp_path: Path) -> None:
    data = {"source": "synthetic:images=6000,size=8"}  # so many images: ResNet-20, whose third stage has three blocks
    body = {"base": {"data": data}, "product": {"pruning.rules": [{"layer3.2.conv1": "window"}]}}
    _check(read_grid(grid(tmp_path, body)))


def test_another_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([grid(tmp_path), "--output", str(tmp_path / "s"), "--jobs", "4", "--no-report"]) == 0
    assert cli.main(["sweep", grid(tmp_path, pace=0), "--output", str(tmp_path / "s")]) == 2
    assert "holds a sweep of another grid" in capsys.readouterr().err
    assert cli.main(["sweep", str(tmp_path / "s"), "--output", str(tmp_path / "t")]) == 2
    assert "it goes on there, without --output" in capsys.readouterr().err
    assert cli.main(["sweep", "status", str(tmp_path)]) == 2
    assert "holds no sweep" in capsys.readouterr().err
