"""A run that takes a second, and how two runs are compared."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from campfire.config import Config, from_flags, load

SMALL: dict[str, Any] = {
    "data": "digits",
    "model": "resnet8",
    "model_kwargs": {"width": 0.25},
    "epochs": 4,
    "era_start": 1,
    "era_length": 2,
    "img_size": 16,
    "batch_size": 128,
    "seed": 3,
    "threads": 1,
    "validation_batch_size": 400,
}


CLOCKED = ("seconds", "images_per_second", "data_wait")


def small(**flags: Any) -> Config:
    """A small configuration with changes."""
    return load(from_flags(SMALL | flags))[0]


def records(run: Path) -> list[dict[str, Any]]:
    """The epochs of a run, without what a clock measured."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(s).items() if k not in CLOCKED} for s in lines]


def assert_equal_runs(ours: Path, theirs: Path) -> None:
    """Bit for bit: weights, masks, optimizer state, generators, and every number of every epoch."""
    one, other = (load_file(run / "model.safetensors") for run in (ours, theirs))
    assert one.keys() == other.keys()
    assert [n for n in one if not torch.equal(one[n], other[n])] == []
    states = [torch.load(run / "last.pt", weights_only=True) for run in (ours, theirs)]
    for key in ("model", "optimizer", "pruner", "scaler", "ema", "rng", "epoch", "step", "best"):
        assert_same(states[0][key], states[1][key], key)
    assert records(ours) == records(theirs)


def assert_same(a: Any, b: Any, where: str) -> None:
    """Equal trees of plain values and tensors."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def dropout_net(num_classes: int, in_channels: int) -> nn.Module:
    """A net that draws random numbers while it trains."""
    stem = [nn.Conv2d(in_channels, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*stem, nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(72, num_classes))


def plain_net(num_classes: int, in_channels: int) -> nn.Module:
    """A net without norms: what it learns from a batch does not depend on how the batch is shared."""
    stem = [nn.Conv2d(in_channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*stem, nn.Conv2d(16, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, num_classes))
