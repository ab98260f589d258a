"""The papers' numbers on the real network, through the pruner: masks of all 53 convolutions of ResNet-50."""

import warnings

import pytest
import torch
from torch import nn

from campfire import OneShot, Pruner, models
from campfire.errors import LostOutputs

N = 23_454_912


@pytest.fixture(scope="module")
def resnet50_v1() -> nn.Module:
    torch.manual_seed(0)
    return models.create("resnet50_v1", num_classes=200)


def zeros(model: nn.Module, structure: str, sparsity: float) -> int:
    """Zeros that the pruner's masks hold over all convolutions."""
    pruner = Pruner(model, {nn.Conv2d: structure}, OneShot(0, sparsity))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostOutputs)
        pruner.update(pruner.stages[0], sparsity)
    pruner.verify()
    assert pruner.report().convs.weights == N
    return sum(int((~mask.keep).sum()) for mask in pruner.masks.values())


@pytest.mark.parametrize(("target", "true"), [(0.2, 0.479), (0.4, 0.582), (0.6, 0.686), (0.8, 0.843)])
def test_table_1_of_campfire(resnet50_v1: nn.Module, target: float, true: float) -> None:
    assert round(zeros(resnet50_v1, "window:mode=campfire", target) / N, 3) == true


@pytest.mark.parametrize(("sparsity", "expected"), [(0.2, 4_690_877), (0.8, 18_763_806)])
def test_ck_is_exact(resnet50_v1: nn.Module, sparsity: float, expected: int) -> None:
    assert zeros(resnet50_v1, "ck", sparsity) == expected


def test_combined_is_exact(resnet50_v1: nn.Module) -> None:
    """Every 3x3 layer meets floor(s K C R S), every other one floor(s K C) kernels."""
    convs = [m.weight for m in resnet50_v1.modules() if isinstance(m, nn.Conv2d)]
    expected = sum(
        int(0.7 * w.numel() + 1e-6) if w.shape[2] == 3 else int(0.7 * w.shape[0] * w.shape[1] + 1e-6) * w.shape[2] ** 2
        for w in convs
    )
    assert zeros(resnet50_v1, "combined", 0.7) == expected
