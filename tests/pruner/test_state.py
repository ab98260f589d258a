"""The state of a pruner: safe to load, complete, and refused by name when it is damaged or belongs elsewhere."""

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pruner_nets import assert_true_to_masks, net, train
from torch import nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, Steps, inter_epoch
from campfire.errors import CheckpointError, UsageError

ERA = Era(0, 4, 0.7)
RULES = {"body": "combined", "point": "ck", "head": "fine-fc"}


def fresh(rules: object = RULES, schedule: object = ERA, model: nn.Module | None = None, **kwargs: Any) -> Pruner:
    return Pruner(net() if model is None else model, rules, schedule, **kwargs)


def trained(steps: int = 5, **kwargs: Any) -> Pruner:
    pruner = fresh(**kwargs)
    optimizer = SGD(pruner.model.parameters(), lr=0.05, momentum=0.9)
    pruner.attach(optimizer, steps_per_epoch=2)
    train(pruner.model, [optimizer], range(steps))
    return pruner


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if torch.is_tensor(one):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other


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


# --- states that belong elsewhere --------------------------------------------------------------------------------------


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


# --- damaged states ----------------------------------------------------------------------------------------------------

Damage = Callable[[dict[str, Any]], object]


def put(*path: Any, value: Any) -> Damage:
    def damage(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value

    return damage


def drop(*path: Any) -> Damage:
    def damage(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        del state[path[-1]]

    return damage


def change(*path: Any, by: Callable[[Any], Any]) -> Damage:
    def damage(state: dict[str, Any]) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = by(state[path[-1]])

    return damage


DAMAGED: dict[str, tuple[Damage, str]] = {
    "other version": (put("version", value=2), "version 2; this campfire reads 1"),
    "no version": (drop("version"), "version: Field required"),
    "version of a wrong type": (put("version", value="1"), "version: Input should be a valid integer"),
    "no layers": (drop("layers"), "layers: Field required"),
    "no clock": (drop("clock"), "clock: Field required"),
    "no bits": (drop("layers", "body", "bits"), "layers.body.bits: Field required"),
    "an extra key": (put("extra", value=1), "extra: Extra inputs are not permitted"),
    "layers as a list": (put("layers", value=[]), "layers: Input should be a valid dictionary"),
    "a layer as a number": (put("layers", "body", value=3), "layers.body: Input should be"),
    "steps as text": (put("clock", "steps", value="5"), "clock.steps: Input should be a valid integer"),
    "negative steps": (put("clock", "steps", value=-1), "clock.steps: .*greater than or equal to 0"),
    "a pace of 0": (put("clock", "steps_per_epoch", value=0), "clock.steps_per_epoch: .*greater than or equal to 1"),
    "no finite epoch": (put("clock", "epoch_then", value=float("nan")), "clock.epoch_then: .*finite"),
    "applied as text": (put("stages", 0, "applied", value="much"), "stages.0.applied"),
    "applied out of range": (put("stages", 0, "applied", value=1.0), "stages.0.applied: .*less than 1"),
    "goals as a list": (put("stages", 0, "goals", value=[0.7]), "stages.0.goals"),
    "a goal out of range": (put("stages", 0, "goals", "body", value=7.0), "stages.0.goals.body"),
    "a goal missing": (drop("stages", 0, "goals", "body"), "goals of phase 0 lack body"),
    "goals of a stranger": (put("stages", 0, "goals", "x", value=0.5), "goals of phase 0 name x"),
    "plans of a stranger": (put("stages", 0, "plans", "x", value={}), "plans of phase 0 name x"),
    "a plan of numbers": (put("stages", 0, "plans", "body", value={"goal": 0.7}), "stages.0.plans.body.goal"),
    "a plan of other words": (
        put("stages", 0, "plans", "body", value={"gaol": torch.tensor(0.7)}),
        "layer 'body' of the pruner state is damaged: its plan is .*gaol.*'combined' wants .*goal",
    ),
    "a plan of another type": (put("stages", 0, "plans", "body", value={"goal": torch.tensor(1)}), "0-D torch.int64"),
    "a plan that is no number": (
        put("stages", 0, "plans", "body", value={"goal": torch.tensor(float("nan"), dtype=torch.float64)}),
        "all finite",
    ),
    "truncated bits": (
        change("layers", "body", "bits", by=lambda b: b[:-1]),
        r"layer 'body' of the pruner state is damaged: a bit mask for shape \(16, 8, 3, 3\) is 144 uint8 values; got \(143",
    ),
    "surplus bits": (change("layers", "body", "bits", by=lambda b: torch.cat([b, b])), "144 uint8 values; got"),
    "bits of another type": (change("layers", "body", "bits", by=lambda b: b.float()), "of torch.float32"),
    "bits in two dimensions": (change("layers", "body", "bits", by=lambda b: b[None]), r"got \(1, 144\)"),
    "bits as bytes": (put("layers", "body", "bits", value=b"\x00"), "layers.body.bits"),
    "everything dead": (change("layers", "body", "bits", by=torch.zeros_like), "layer 'body' .* 0 weights live"),
    "everything alive": (
        change("layers", "point", "bits", by=lambda b: b | 255),
        "layer 'point' .* 256 weights live; 'ck' at sparsity 0.6125 keeps 100",
    ),
    "bits gone": (put("layers", "point", "bits", value=None), "layer 'point' .* 256 weights live"),
    "an illegal mask": (
        change("layers", "body", "bits", by=lambda b: b & 0b11100111),
        "layer 'body' of the pruner state is damaged: its mask is no 'combined': living kernels hold",
    ),
    "a structure the rules do not know": (
        put("layers", "body", "structure", value="ck"),
        "layer 'body' .* it was saved as 'ck'; the rules know 'combined'",
    ),
    "sparsity out of range": (put("layers", "body", "requested", value=1.0), "layers.body.requested"),
    "another shape": (put("layers", "body", "shape", value=[16, 8, 3]), r"has shape \[16, 8, 3, 3\] here"),
    "no method": (drop("method"), "method: Field required"),
    "method state of a wrong type": (put("method", "state", value=[1]), "method.state"),
    "schedule of a wrong type": (put("stages", 0, "schedule", value="era"), "stages.0.schedule"),
    "settings of a wrong type": (put("settings", value=None), "settings"),
    "no stages": (put("stages", value=[]), "1 phases here and 0 in the checkpoint"),
}


@pytest.fixture(scope="module")
def good() -> dict[str, Any]:
    return trained(5).state_dict()


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_state_is_refused_and_changes_nothing(case, good):
    damage, message = DAMAGED[case]
    state = through_a_file(good)
    damage(state)
    pruner = trained(3)
    before, weights = pruner.state_dict(), copy.deepcopy(pruner.model.state_dict())
    with pytest.raises(CheckpointError, match=message) as raised:
        pruner.load_state_dict(state)
    assert raised.value.exit_code == 1
    assert same(pruner.state_dict(), before)
    assert all(torch.equal(weights[k], v) for k, v in pruner.model.state_dict().items())
    pruner.load_state_dict(good)


@pytest.mark.parametrize("state", [None, [], "state", 3, {}, {"version": 1}, {1: 2}, torch.zeros(3), {"version": True}])
def test_what_is_no_state_at_all(state):
    with pytest.raises(CheckpointError, match="not the state of a pruner, or a damaged one"):
        fresh().load_state_dict(state)


def test_a_given_list_is_part_of_the_rules():
    one = fresh("ck", allocation={"body": 0.5, "point": 0.5})
    with pytest.raises(CheckpointError, match="the allocation is"):
        fresh("ck", allocation={"body": 0.5, "point": 0.6}).load_state_dict(one.state_dict())
    fresh("ck", allocation={"point": 0.5, "body": 0.5}).load_state_dict(one.state_dict())


def test_after_a_resume_wrong_use_is_still_told():
    pruner = fresh()
    pruner.load_state_dict(trained().state_dict())
    with pytest.raises(UsageError, match="no pruned weight"):
        pruner.attach(SGD(net().parameters(), lr=0.1), steps_per_epoch=1)
