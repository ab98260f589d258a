"""Damaged states: each is refused with what is wrong, and changes nothing."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pruner_states import fresh, same, through_a_file, trained

from campfire.errors import CheckpointError

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
