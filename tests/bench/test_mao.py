"""bench/mao.py and bench/quantised.py on tiny networks: levels, resuming, equal accuracy, and what quantising costs."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from campfire import cli

BENCH = Path(__file__).parents[2] / "bench"
DATA = "synthetic:images=64,size=16"


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense") / "run"
    options = ["--model", "resnet8", "--model-kwargs", "width=0.5", "-b", "16", "--epochs", "1"]
    assert cli.main(["train", DATA, "--structure", "dense", *options, "--output", str(folder)]) == 0
    return folder


def run(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", [script, *argv])
    capsys.readouterr()
    runpy.run_path(str(BENCH / script), run_name="__main__")
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_mao(dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    argv = [
        DATA,
        "--dense",
        str(dense),
        "--output",
        str(tmp_path),
        "--epochs",
        "1",
        "-b",
        "16",
        "--grains",
        "fine,kernel",
    ]
    found = run("mao.py", monkeypatch, capsys, *argv, "--sparsities", "0.5,0.75")
    levels = {(x["grain"], x["sparsity_requested"]): x for x in found["levels"]}
    assert len(levels) == 4
    assert levels["fine", 0.5]["mao_ratio"] > levels["kernel", 0.5]["mao_ratio"] > levels["kernel", 0.75]["mao_ratio"]
    assert (tmp_path / "mao.svg").read_text().startswith("<?xml")
    assert json.loads((tmp_path / "mao.json").read_text()) == found
    reached = [x for x in found["equal_accuracy"] if x["least"]]
    assert reached
    for x in reached:
        stored = {g: y["costs"]["mao_ratio"] for g, y in x["grains"].items() if y}
        assert stored[x["least"]] == min(stored.values())
    low, high = (load_file(tmp_path / "kernel" / level / "model.safetensors") for level in ("0.50", "0.75"))
    assert not any(
        ((high[n] != 0) & (low[n] == 0)).any() for n in low if low[n].dim() == 4
    )  # a level prunes what was left

    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.pt")}
    (tmp_path / "kernel" / "0.75" / "summary.json").unlink()  # as if it had been stopped there
    assert run("mao.py", monkeypatch, capsys, *argv, "--sparsities", "0.5,0.75") == found
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.pt")}
    assert {p.parent.name for p in after if after[p] == before[p]} >= {"0.50"}


def test_quantised(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keep = tmp_path / "kept.json"
    argv = [str(dense), "--ways", "int8,codebook:2", "--output", str(keep)]
    found = run("quantised.py", monkeypatch, capsys, *argv)
    int8, two = found["runs"][0]["rows"]
    assert abs(int8["loss"]) <= abs(two["loss"]) + 10
    assert int8["bits_a_weight"] > 8 > 3 > two["bits_a_weight"] > 2
    assert found["spread"] == {"int8": 0, "codebook:2": 0}
    monkeypatch.setattr("campfire.training.load_run", lambda path: pytest.fail("it was kept"))
    assert run("quantised.py", monkeypatch, capsys, *argv) == found


def test_shared_values_can_be_finetuned(
    dense: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run("quantised.py", monkeypatch, capsys, str(dense), "--ways", "codebook:3", "--finetune", "2")
    assert found["runs"][0]["finetune_steps"] == 2
