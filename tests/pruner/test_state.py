"""The state of a pruner: safe to load, complete, and refused by name where it belongs elsewhere."""

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from pruner_nets import assert_true_to_masks, net, train
from pruner_states import RULES, fresh, same, through_a_file, trained
from torch import nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, Steps, inter_epoch
from campfire.errors import CheckpointError, UsageError


@pytest.mark.parametrize("steps", [1, 5, 12])
def test_round_trip(steps):
    state = trained(steps).state_dict()
    pruner = fresh()
    pruner.load_state_dict(through_a_file(state))
    assert same(pruner.state_dict(), state)
    assert pruner.steps == steps
    assert pruner.epoch == steps / 2
    assert pruner.frozen == (steps >= 10)


def test_the_state_is_plain_and_small():
    def check(value: Any) -> int:
        if isinstance(value, dict):
            return sum(check(v) for v in value.values())
        if isinstance(value, list):
            return sum(check(v) for v in value)
        assert value is None or type(value) in (int, float, str, bool, torch.Tensor)
        return value.numel() * value.element_size() if torch.is_tensor(value) else 0

    assert check(trained().state_dict()) <= 1152 / 8 + 256 / 8 + 640 / 8 + 16


def test_a_state_is_a_snapshot():
    pruner = trained(3)
    state, saved = pruner.state_dict(), copy.deepcopy(pruner.state_dict())
    optimizer = SGD(pruner.model.parameters(), lr=0.05)
    pruner.detach()
    pruner.attach(optimizer, steps_per_epoch=2)
    train(pruner.model, [optimizer], range(3, 10))
    assert same(state, saved)
    assert not same(pruner.state_dict(), saved)


def test_back_to_an_earlier_state():
    pruner = trained(5)
    early = fresh().state_dict()
    pruner.load_state_dict(early)
    assert (pruner.masks, pruner.steps, pruner.sparsity) == ({}, 0, 0.0)


@pytest.mark.parametrize("order", ["pruner first", "model first"])
@pytest.mark.parametrize("attached", ["before", "after"])
def test_orders_of_loading(order, attached):
    source = trained(5)
    state, weights = through_a_file(source.state_dict()), copy.deepcopy(source.model.state_dict())
    pruner = fresh(model=net(seed=1))
    optimizer = SGD(pruner.model.parameters(), lr=0.05, momentum=0.9)
    if attached == "before":
        pruner.attach(optimizer, steps_per_epoch=2)
    for load in [pruner.load_state_dict, pruner.model.load_state_dict][:: 1 if order == "pruner first" else -1]:
        load(state if load == pruner.load_state_dict else weights)
    if attached == "after":
        pruner.attach(optimizer, steps_per_epoch=2)
    for one, other in zip(pruner.model.parameters(), source.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert pruner.epoch == 2.5
    train(pruner.model, [optimizer], range(5, 12))
    assert_true_to_masks(pruner, optimizer)
    assert pruner.frozen


@pytest.mark.parametrize("attached", ["before", "after"])
def test_at_another_pace_the_epoch_goes_on(attached):
    """Resumed with larger batches: fewer steps make an epoch."""
    state = trained(6).state_dict()
    pruner = fresh()
    optimizer = SGD(pruner.model.parameters(), lr=0.05)
    if attached == "before":
        pruner.attach(optimizer, steps_per_epoch=1)
    pruner.load_state_dict(state)
    if attached == "after":
        pruner.attach(optimizer, steps_per_epoch=1)
    assert (pruner.epoch, pruner.steps) == (3.0, 6)
    train(pruner.model, [optimizer], range(2))
    assert pruner.epoch == 5.0


def test_loading_zeroes_what_is_dead():
    pruner = fresh(model=net(seed=3))
    pruner.load_state_dict(trained(5).state_dict())
    assert_true_to_masks(pruner)


def smaller() -> nn.Module:
    model = net()
    model.point = nn.Conv2d(16, 32, 1)
    model.head = nn.Linear(128, 10)
    return model


ELSEWHERE: dict[str, tuple[dict[str, Any], str]] = {
    "other shapes": (
        {"model": smaller()},
        r"layer 'point' has shape \[32, 16, 1, 1\] here and \[16, 16, 1, 1\] in the checkpoint",
    ),
    "fewer layers": ({"rules": {"body": "combined", "point": "ck"}}, "layer 'head' is pruned in the checkpoint only"),
    "more layers": ({"rules": {**RULES, "stem": "ck"}}, "layer 'stem' is pruned here only"),
    "other structure": (
        {"rules": {**RULES, "body": "window"}},
        r"layer 'body' is 'window' here and 'combined' in the checkpoint \(phase 0\)",
    ),
    "other options": (
        {"rules": {**RULES, "body": "combined:share=0.5"}},
        "'combined:share=0.5' here and 'combined' in",
    ),
    "other schedule": ({"schedule": Era(0, 4, 0.8)}, "the schedule of phase 0 is .*0.8.* here and .*0.7"),
    "other kind of schedule": ({"schedule": OneShot(0, 0.7)}, "the schedule of phase 0 is .*oneshot.* here and .*era"),
    "more phases": ({"rules": inter_epoch(0, 5, 0.7), "schedule": None}, "2 phases here and 1 in the checkpoint"),
    "other score": ({"score": "random"}, "the score is .*Random.* here and 'magnitude' in the checkpoint"),
    "other allocation": ({"allocation": "erk"}, "the allocation is 'erk' here and 'uniform' in the checkpoint"),
    "other interval": ({"every": 3}, "the every is 3 here and 1 in the checkpoint"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_a_state_of_something_else_is_refused_with_the_difference(case):
    kwargs, message = ELSEWHERE[case]
    pruner = fresh(**kwargs)
    before = pruner.state_dict()
    with pytest.raises(CheckpointError, match=message):
        pruner.load_state_dict(trained().state_dict())
    assert same(pruner.state_dict(), before)


def test_another_method():
    steps = Steps(((0, 0.3), (2, 0.6)))
    with pytest.raises(CheckpointError, match="the method is 'iterative' here and 'gradual' in the checkpoint"):
        fresh(schedule=steps, method="iterative").load_state_dict(fresh(schedule=steps).state_dict())


def test_a_layer_of_one_phase_only():
    one, other = inter_epoch(0, 5, 0.7), inter_epoch(0, 5, 0.7)
    object.__setattr__(other[1], "rules", {"body": "window:mode=mixed,dead_kernels=True"})
    with pytest.raises(
        CheckpointError, match=r"layer 'point' is 'window.*' here and 'dense' in the checkpoint \(phase 1\)"
    ):
        fresh(one, None).load_state_dict(fresh(other, None).state_dict())


def test_every_difference_is_listed():
    pruner = fresh({"body": "window", "stem": "ck"}, Era(0, 3, 0.5), every=2)
    with pytest.raises(CheckpointError) as raised:
        pruner.load_state_dict(trained().state_dict())
    assert str(raised.value).count("\n  - ") == 6


def test_a_given_list_is_part_of_the_rules():
    one = fresh("ck", allocation={"body": 0.5, "point": 0.5})
    with pytest.raises(CheckpointError, match="the allocation is"):
        fresh("ck", allocation={"body": 0.5, "point": 0.6}).load_state_dict(one.state_dict())
    fresh("ck", allocation={"point": 0.5, "body": 0.5}).load_state_dict(one.state_dict())


@pytest.mark.parametrize("pace", [np.int64(2), 2.0, None])
def test_numbers_of_numpy_are_saved_as_pythons(pace):
    """Else nobody could load the checkpoint, which has nothing but plain values."""

    def made() -> tuple[Pruner, nn.Module, SGD]:
        model = net()
        optimizer = SGD(model.parameters(), lr=0.1)
        era, shares = Era(np.float64(0), 1, np.float64(0.5)), {"body": np.float64(0.5), "point": np.float32(0.25)}
        pruner = Pruner(model, {"body": "ck", "point": "fine"}, era, allocation=shares, every=np.int64(1))
        return pruner.attach(optimizer, steps_per_epoch=pace), model, optimizer

    pruner, model, optimizer = made()
    pruner.set_epoch(np.float64(1), np.int64(0))
    train(model, [optimizer], range(3))
    again, _, _ = made()
    again.load_state_dict(through_a_file(pruner.state_dict()))
    assert same(again.state_dict(), pruner.state_dict())
    assert again.sparsity > 0.4


def test_after_a_resume_wrong_use_is_still_told():
    pruner = fresh()
    pruner.load_state_dict(trained().state_dict())
    with pytest.raises(UsageError, match="no pruned weight"):
        pruner.attach(SGD(net().parameters(), lr=0.1), steps_per_epoch=1)


class OwnScore:
    def __call__(self, weight, grad):
        return weight.abs()


@pytest.mark.parametrize("make", [OwnScore, lambda: functools.partial(lambda w, g, p: w.abs() ** p, p=2)])
def test_a_score_of_ones_own_is_recognised_in_another_process(make):
    """Its name is saved, not its address."""
    fresh(score=make()).load_state_dict(fresh(score=make()).state_dict())
    with pytest.raises(CheckpointError, match=r"the score is 'magnitude' here and '(OwnScore|partial)' in"):
        fresh().load_state_dict(fresh(score=make()).state_dict())
