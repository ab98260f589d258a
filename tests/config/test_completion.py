"""Defaults that follow from other options, and eras that do not fit."""

from typing import Any

import pytest

from campfire.config import from_flags, load
from campfire.config.schema import Pruning
from campfire.errors import UsageError


def pruning(**flags: Any) -> Pruning:
    return load(from_flags(flags))[0].pruning


@pytest.mark.parametrize("epochs", [1, 2, 3, 4, 5, 7, 12, 90])
def test_the_default_era_always_fits(epochs: int) -> None:
    p = pruning(epochs=epochs)
    assert p.era_start is not None
    assert p.era_length is not None
    end = p.era_start + p.era_length
    assert end < epochs if p.era_by == "step" else end <= epochs - 1


@pytest.mark.parametrize(
    ("flags", "era"),
    [
        ({"epochs": 90}, (30, 30, "epoch")),
        ({"epochs": 2}, (0, 1, "epoch")),
        ({"epochs": 1}, (1 / 3, 1 / 3, "step")),
        ({"epochs": 10, "era_start": 8}, (8, 1, "epoch")),
        ({"epochs": 10, "era_length": 8}, (1, 8, "epoch")),
        ({"epochs": 10, "era_start": 0, "era_length": 9}, (0, 9, "epoch")),
        ({"epochs": 4, "structure": "inter-epoch"}, (0, 3, "epoch")),
    ],
)
def test_eras(flags: dict[str, Any], era: tuple[float, float, str]) -> None:
    p = pruning(**flags)
    assert (p.era_start, p.era_length, p.era_by) == era


@pytest.mark.parametrize(
    ("flags", "cures"),
    [
        (
            {"epochs": 10, "era_start": 8, "era_length": 2},
            "--era-start at most 7 with --era-length 2, or --era-length at most 1 with --era-start 8, or --epochs 11",
        ),
        ({"epochs": 10, "era_length": 10}, "--era-length at most 9 with --era-start 0, or --epochs 11 or more"),
        ({"epochs": 10, "era_start": 12, "era_length": 1}, "--era-start at most 8 with --era-length 1, or --epochs 14"),
        ({"epochs": 1, "era_by": "epoch"}, "legal: --epochs 2 or more"),
        ({"epochs": 5, "era_start": 1.5, "era_length": 3}, "--epochs 6 or more"),
        ({"epochs": 4, "era_start": 1.5, "era_length": 3, "era_by": "step"}, "--epochs 5 or more"),
        ({"epochs": 3, "era_by": "step", "era_start": 2, "era_length": 1}, "--era-start below 2 with --era-length 1"),
        ({"epochs": 3, "structure": "inter-epoch"}, "--epochs 4 or more"),
    ],
)
def test_an_era_beyond_the_last_epoch(flags: dict[str, Any], cures: str) -> None:
    with pytest.raises(UsageError) as caught:
        pruning(**flags)
    assert cures in str(caught.value)


def test_the_cure_for_a_fractional_era_works() -> None:
    assert pruning(epochs=6, era_start=1.5, era_length=3)


def test_a_dense_run_has_no_era() -> None:
    assert pruning(structure="dense", epochs=3, era_start=9).schedule is None


def test_iterative_prunes_in_three_steps() -> None:
    p = pruning(method="iterative", epochs=9, sparsity=0.6)
    assert p.schedule == "steps"
    assert p.steps is not None
    assert [e for e, _ in p.steps] == [3, 4.5, 6]
    assert [s for _, s in p.steps] == pytest.approx([0.2, 0.4, 0.6])
    assert p.steps[-1][1] == 0.6


def test_steps_that_are_given_choose_their_schedule() -> None:
    assert pruning(steps="1:0.3 2:0.5").schedule == "steps"


def test_optimizers_have_their_own_defaults() -> None:
    found = {opt: load(from_flags({"opt": opt}))[0].optim for opt in ("sgd", "adam", "adamw")}
    assert {opt: (o.lr, o.weight_decay) for opt, o in found.items()} == {
        "sgd": (0.1, 5e-4),
        "adam": (1e-3, 0.0),
        "adamw": (1e-3, 0.05),
    }


@pytest.mark.parametrize(
    ("method", "schedule", "by", "start", "length", "initial"),
    [
        ("rigl:fraction=0.5", "era", "step", 0, 6, 0.8),
        ("set", "era", "step", 0, 6, 0.8),
        ("prunetrain", "era", "step", 0, 6, 0),
        ("snip", "oneshot", "epoch", 0, 6, 0),
        ("zhu-gupta", "era", "step", 8 / 3, 8 / 3, 0),
        ("l1-filter", "oneshot", "epoch", 2, 2, 0),
        ("gradual", "era", "epoch", 2, 2, 0),
        ("somebody-elses", "era", "epoch", 2, 2, 0),
    ],
)
def test_every_method_has_a_usual_schedule(method, schedule, by, start, length, initial) -> None:
    p = pruning(epochs=8, sparsity=0.8, method=method)
    assert (p.schedule, p.era_by, p.era_start, p.era_initial) == (schedule, by, start, initial)
    assert p.era_length == pytest.approx(length)


def test_a_lottery_has_four_rounds() -> None:
    steps = pruning(epochs=8, sparsity=0.875, method="lottery").steps
    assert steps == ((2.0, pytest.approx(0.5)), (4.0, pytest.approx(0.75)), (6.0, 0.875))


def test_what_is_given_wins() -> None:
    p = pruning(epochs=8, method="rigl", era_start=2, era_length=5, era_initial=0.1, era_by="epoch")
    assert (p.era_start, p.era_length, p.era_initial, p.era_by) == (2, 5, 0.1, "epoch")
    assert pruning(epochs=8, method="rigl", era_start=4).era_length == 3
    assert pruning(epochs=8, method="l1-filter", steps=((1, 0.2), (3, 0.4))).schedule == "steps"


def test_clicktrain_runs_from_a_third_to_three_quarters_and_mixes_after() -> None:
    config = load(from_flags({"method": "clicktrain:batches=1", "structure": "pattern", "epochs": 24}))[0]
    p, o = config.pruning, config.optim
    assert (p.schedule, p.era_by, p.era_start, p.era_length) == ("era", "step", 8.0, 10.0)
    assert (o.mixup, o.mixup_start) == (0.3, 18.0)
    given = load(from_flags({"method": "clicktrain", "epochs": 95, "era_start": 35, "era_length": 43}))[0]
    assert (given.pruning.era_start, given.optim.mixup_start) == (35, 78)
    none = load(from_flags({"method": "clicktrain", "mixup": 0.0, "mixup_start": 2.0}))[0].optim
    assert (none.mixup, none.mixup_start) == (0.0, 2.0)
    assert load(from_flags({}))[0].optim.mixup == 0.0
