"""The learning rate of every step, and which weights decay."""

import math
from typing import Any

import pytest
from torch import nn

from campfire.config import from_flags, load
from campfire.config.schema import Optim
from campfire.errors import UsageError
from campfire.training.optim import learning_rate, make_optimizer


def optim(**flags: Any) -> Optim:
    return load(from_flags({"epochs": 10, "lr": 1.0, **flags}))[0].optim


def rates(steps_per_epoch: int = 4, **flags: Any) -> list[float]:
    settings = optim(**flags)
    return [learning_rate(settings, step, steps_per_epoch) for step in range(settings.epochs * steps_per_epoch)]


def test_warmup_rises_in_equal_steps_to_the_peak() -> None:
    assert rates(warmup_epochs=2, sched="constant")[:10] == pytest.approx([*(i / 8 for i in range(1, 9)), 1, 1])


def test_cosine_falls_to_min_lr() -> None:
    found = rates(warmup_epochs=0, min_lr=0.1)
    assert found[0] == 1
    assert found[20] == pytest.approx(0.55)
    assert found[-1] == pytest.approx(0.1 + 0.45 * (1 + math.cos(math.pi * 39 / 40)))
    assert found == sorted(found, reverse=True)


def test_step_decays() -> None:
    found = rates(steps_per_epoch=1, warmup_epochs=0, sched="step", decay_epochs=4, decay_rate=0.5)
    assert found == [1] * 4 + [0.5] * 4 + [0.25] * 2


def test_step_decays_at_milestones() -> None:
    found = rates(steps_per_epoch=2, warmup_epochs=0, sched="step", decay_milestones=[3, 8], decay_rate=0.5)
    assert found == [1] * 6 + [0.5] * 10 + [0.25] * 4


@pytest.mark.parametrize("milestones", [[3, 2], [3, 10], [-1], []])
def test_milestones_rise_and_lie_inside_the_run(milestones: list[float]) -> None:
    with pytest.raises(UsageError, match="rise from 0 up, below --epochs 10"):
        optim(sched="step", decay_milestones=milestones)


def test_milestones_go_with_step() -> None:
    with pytest.raises(UsageError, match="goes with --sched step"):
        optim(decay_milestones=[3])


def test_nesterov_may_be_left_out() -> None:
    found = (make_optimizer(nn.Linear(2, 2), optim(nesterov=n)) for n in (True, False))
    assert [o.param_groups[0]["nesterov"] for o in found] == [True, False]


def test_onecycle_peaks_at_three_tenths() -> None:
    found = rates(sched="onecycle")
    assert found.index(max(found)) == 11
    assert found[-1] < 0.01


@pytest.mark.parametrize("opt", ["sgd", "adam", "adamw"])
def test_only_matrices_decay(opt: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    model[3].requires_grad_(False)
    matrices, vectors = make_optimizer(model, optim(opt=opt, weight_decay=0.1)).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert [p.ndim for p in matrices["params"]] == [4]
    assert [p.ndim for p in vectors["params"]] == [1, 1, 1]


def test_all_parameters_may_decay() -> None:
    groups = make_optimizer(nn.Linear(2, 2), optim(weight_decay=0.1, norm_weight_decay=0.2)).param_groups
    assert [g["weight_decay"] for g in groups] == [0.1, 0.2]
