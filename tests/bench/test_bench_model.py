"""The model benchmark: the compressed model computes what the masked one does, and its figures belong together."""

import json

import pytest
import torch
from torch import nn

from campfire import models
from campfire.bench.model import _compressed, bench_model
from campfire.cli import main
from campfire.nn import SparseConv2d


def test_what_is_timed_is_compressed_and_right() -> None:
    dense = models.create("resnet18", num_classes=1000)
    sparse, memory, kernels, true = _compressed(dense, "tiles", 0.7)
    layers = [m for m in sparse.modules() if isinstance(m, SparseConv2d)]
    assert sum(kernels.values()) == len(layers) == 19
    assert true == pytest.approx(0.7, abs=0.01)
    assert memory == pytest.approx(0.3, abs=0.02)
    masked = models.create("resnet18", num_classes=1000)
    masked.load_state_dict(sparse.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(masked.eval()(x), sparse.eval()(x), atol=1e-3, rtol=1e-3)
    assert all(isinstance(m, nn.Conv2d) for name, m in dense.named_modules() if "conv" in name)


def test_figures_belong_together() -> None:
    found = bench_model("resnet18", batches=[2, 1], rounds=1, size=32)
    assert found["inference_ratio"] == found["inference_2"]["ratio"]
    x = found["train_step"]
    assert x["ratio"] == pytest.approx(x["dense_ms"] / x["sparse_ms"])
    assert found["dense_bf16_ratio"]["train_step"] == pytest.approx(x["dense_bf16_ms"] / x["sparse_ms"])


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["bench", "model", "--model", "resnet18", "--size", "32", "--rounds", "1", "--batches", "2"]
    assert main([*small, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["structure"] == "tiles"
    assert main(small) == 0
    assert "train_step" in capsys.readouterr().out
    assert main([*small, "--structure", "tile"]) == 2
