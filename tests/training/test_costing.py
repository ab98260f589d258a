"""A finished run says what it costs; a model that cannot be counted is trained all the same."""

import json
from pathlib import Path
from typing import Any

import pytest

import campfire
from campfire.errors import CampfireError
from campfire.report.records.reading import read_run
from campfire.training import costing

SMALL = {"data": "synthetic:images=32,size=8", "model": "resnet8", "batch_size": 16, "epochs": 3, "threads": 1}


def test_costs_are_those_of_its_masks(tmp_path: Path) -> None:
    result = campfire.train(output=tmp_path / "run", sparsity=0.5, **SMALL)
    costs = read_run(tmp_path / "run").costs
    assert costs is not None
    assert (costs.images, sum(layer.sparse_macs for layer in costs.layers)) == (4, result.summary["sparse_macs"])
    assert costs.convolutions.file_bytes < 0.6 * costs.convolutions.dense_bytes
    assert costs.convolutions.references is not None


def test_the_plan_of_a_compressed_run_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    campfire.train(output=run, structure="tiles", sparsity=0.5, compress=True, dispatch="model", **SMALL)
    kernels = read_run(run).kernels
    assert kernels is not None
    assert not kernels.measured
    assert {name for layer in kernels.layers for name in layer.passes} == {"forward", "d_input", "d_values"}
    assert "Speed of each layer" in (run / "report.md").read_text(encoding="utf-8")


def test_a_model_that_cannot_be_counted_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise CampfireError("a layer's input is not what its mask is for")

    monkeypatch.setattr(costing.costs, "cost", refuse)
    campfire.train(output=tmp_path / "run", sparsity=0.5, **SMALL)
    assert not (tmp_path / "run" / "costs.json").exists()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"
    assert "cannot be counted" in (tmp_path / "run" / "log.txt").read_text()
