"""The benchmark compares like with like: the usual code it times makes the same masks."""

import json

import pytest
import torch

from campfire.bench.masks import _by_topk, bench_masks
from campfire.bench.timing import ratio
from campfire.cli import main
from campfire.native import library
from campfire.structures import named


@pytest.mark.parametrize("name", ["ck", "fine", "window"])
@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (24, 16, 1, 1), (8, 3, 7, 7)])
def test_the_baseline_makes_equal_masks(name: str, shape: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    structure, everything = named(name), torch.ones(shape, dtype=torch.bool)
    before = structure.project(weight.abs(), structure.count(shape, 0.5), {}, everything)
    count = structure.count(shape, 0.7)
    assert torch.equal(_by_topk(structure, weight, count, before), structure.project(weight.abs(), count, {}, before))


def test_it_reports_every_figure() -> None:
    found = bench_masks("resnet8", rounds=2)
    for part in ("ck", "fine", "window", "reapply"):
        assert found[part]["ours_ms"] > 0
        assert found[part]["ratio"] > 0
    assert found["machine"]["torch"] == torch.__version__


def test_ratios_are_taken_round_by_round() -> None:
    assert ratio({"a": [1.0, 20.0, 3.0], "b": [1.0, 10.0, 1.0]}, "a", "b") == 2.0


def test_the_command_prints_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "masks", "--model", "resnet8", "--rounds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "resnet8"
    assert main(["bench", "mask"]) == 2


def test_it_tells_whether_native_code_ran(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_masks("resnet8", rounds=1)["native"] is (library("masks") is not None)
    monkeypatch.setenv("CAMPFIRE_NATIVE", "0")
    assert bench_masks("resnet8", rounds=1)["native"] is False
    assert main(["bench", "masks", "--model", "resnet8", "--rounds", "1"]) == 0
    assert "torch alone" in capsys.readouterr().out
