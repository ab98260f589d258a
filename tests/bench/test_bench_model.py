"""The model benchmark: the compressed model computes what the masked one does, and its figures belong together."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from campfire import models
from campfire.bench.memory import peak_memory
from campfire.bench.model import bench_model
from campfire.bench.nets import Inference, Step, compressed, dense_net, images
from campfire.cli import main
from campfire.errors import CampfireError, UsageError
from campfire.nn import SparseConv2d


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_DISPATCH", "model")


def test_what_is_timed_is_compressed_and_right() -> None:
    dense = dense_net("resnet18")
    sparse = compressed(dense, "tiles", 0.7)
    layers = [m for m in sparse.net.modules() if isinstance(m, SparseConv2d)]
    assert len(layers) == 19
    assert sparse.sparsity == pytest.approx(0.7, abs=0.01)
    assert sparse.memory_ratio == pytest.approx(0.3, abs=0.02)
    masked = models.create("resnet18", num_classes=1000)
    masked.load_state_dict(sparse.net.state_dict())
    x = images(2, 64)
    with torch.no_grad():
        expected = masked.eval()(x)
    for result in (sparse.net.eval()(x), Inference(sparse.net, x)()):
        assert torch.allclose(expected, result, atol=1e-3, rtol=1e-3)
    assert Inference(dense, x, torch.bfloat16)().dtype == torch.bfloat16
    assert all(isinstance(m, nn.Conv2d) for name, m in dense.named_modules() if "conv" in name)


def test_a_step_trains() -> None:
    net = compressed(dense_net("resnet18"), "tiles", 0.7).net
    layer = next(m for m in net.modules() if isinstance(m, SparseConv2d))
    before = layer.value.detach().clone()
    Step(net, images(2, 32), torch.tensor([1, 2]))()
    assert not torch.equal(layer.value, before)


def test_figures_belong_together() -> None:
    found = bench_model("resnet18", batches=[2, 1], rounds=1, size=32)
    assert found["inference_ratio"] == found["inference_2"]["ratio"]
    for name in ("inference_2", "inference_1", "train_step"):
        x = found[name]
        assert x["ratio"] == pytest.approx(x["dense_ms"] / x["sparse_ms"])
        assert x["bf16_ratio"] == pytest.approx(x["dense_bf16_ms"] / x["sparse_ms"])
        assert x["both_bf16_ratio"] == pytest.approx(x["dense_bf16_ms"] / x["sparse_bf16_ms"])
        assert sum(x["kernels"].values()) == 19
    assert found["dense_bf16_ratio"]["train_step"] == found["train_step"]["bf16_ratio"]
    error = found["inference_2"]["fusion_error"]
    assert error["max_abs"] <= 1e-5 * error["largest"]
    peaks = found["peak_memory_mb"]
    assert 50 < peaks["idle"] < peaks["sparse"]
    assert peaks["idle"] + 4 * 3 * 11.7 < peaks["dense"]  # weights, gradients and momentum of 11.7 million parameters


def test_an_unknown_structure(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "model", "--model", "resnet18", "--structure", "tile"]) == 2
    assert "tiles" in capsys.readouterr().err


def test_a_process_that_fails_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(CampfireError, match="resnet18"):
        peak_memory("resnet18", "tiles", 0.7, 1, 32)


def test_the_network_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    flags = ["synthetic", "--model", "resnet8", "--epochs", "1", "--output", str(run)]
    assert main(["train", *flags, "--structure", "ck", "--sparsity", "0.5"]) == 0
    found = bench_model(str(run), batches=[2], rounds=1)
    assert (found["structure"], found["sparsity"], found["peak_memory_mb"]) == ("ck", 0.5, None)
    assert found["memory_ratio"] == pytest.approx(1 - found["sparsity_true"])
    assert found["inference_2"]["fusion_error"]["max_abs"] < 1e-4
    command = ["bench", "model", "--model", str(run), "--batches", "2", "--rounds", "1"]
    assert main(command) == 0
    assert "weights of the pruned layers" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["structure"] == "ck"
    assert main(["train", *flags, "--structure", "dense", "--overwrite"]) == 0
    with pytest.raises(UsageError, match="dense run"):
        bench_model(str(run), batches=[2], rounds=1)
