"""Phases one after another, and inter-epoch pruning: first a CK era, then a window era."""

import pytest
import torch
from pruner_nets import assert_true_to_masks, net, train
from torch.optim import SGD

from campfire import Era, OneShot, Phase, Pruner, inter_epoch
from campfire.errors import DoesNotFit, UsageError


def run(phases, epochs, pace=2):
    model = net()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = Pruner(model, phases).attach(optimizer, steps_per_epoch=pace)
    for step in range(epochs * pace):
        train(model, [optimizer], [step])
        yield pruner


def test_inter_epoch_prunes_kernels_then_windows():
    previous: dict[str, torch.Tensor] = {}
    for pruner in run(inter_epoch(1, 7, 0.7), epochs=11):
        keep = {name: mask.keep for name, mask in pruner.masks.items()}
        for name, before in previous.items():
            assert not (keep[name] & ~before).any()
        if 4 <= pruner.epoch <= 5 and keep:
            assert str(pruner.layers["body"].structure) == "ck"
            assert set(keep["body"].sum((2, 3)).unique().tolist()) == {0, 9}
            ck_kernels = int(keep["body"].any(-1).any(-1).sum())
        previous = keep
    assert pruner.frozen
    body = previous["body"]
    assert int(body.any(-1).any(-1).sum()) == ck_kernels == 128 - int(128 * (1 - 0.3**0.5))
    assert len(body.sum((2, 3)).unique()) <= 3
    assert pruner.layers["body"].kept == 1152 - int(0.7 * 1152)
    assert pruner.layers["point"].kept == 256 - int(0.7 * 256)
    assert_true_to_masks(pruner)


def test_phases_on_different_layers():
    phases = [Phase({"body": "window"}, Era(0, 1, 0.6)), Phase({"head": "fine-fc"}, Era(2, 1, 0.8))]
    *_, pruner = run(phases, epochs=5)
    assert list(pruner.layers) == ["body", "head"]
    assert {r.name: r.requested for r in pruner.report().layers if r.structure} == {"body": 0.6, "head": 0.8}
    assert {r.name for r in pruner.report().layers if r.reason} == {"stem", "point"}


def test_the_same_structure_twice():
    *_, pruner = run([Phase("ck", OneShot(0, 0.3)), Phase("ck", OneShot(2, 0.6))], epochs=4)
    assert pruner.layers["body"].kept == 9 * (128 - int(0.6 * 128))


@pytest.mark.parametrize("first", ["ck", "fine", "window", "combined"])
def test_fine_may_follow_anything(first):
    *_, pruner = run([Phase(first, OneShot(0, 0.3)), Phase("fine", OneShot(1, 0.8))], epochs=3)
    assert pruner.layers["body"].kept == 1152 - int(0.8 * 1152)


@pytest.mark.parametrize(("first", "then"), [("fine", "ck"), ("window", "ck"), ("ck", "window"), ("ck", "2:4")])
def test_a_phase_that_cannot_go_on_from_the_one_before_is_refused_at_once(first, then):
    with pytest.raises(DoesNotFit, match=r"layer 'body' after a phase of"):
        Pruner(net(), [Phase({"body": first}, OneShot(0, 0.5)), Phase({"body": then}, OneShot(1, 0.7))])


def test_orders_that_make_no_sense():
    with pytest.raises(UsageError, match="starts at epoch 2, and the one before it ends at 2"):
        Pruner(net(), [Phase("ck", Era(0, 2, 0.3)), Phase("ck", OneShot(2, 0.6))])
    with pytest.raises(UsageError, match="leave schedule out"):
        Pruner(net(), [Phase("ck", OneShot(0, 0.3))], OneShot(0, 0.3))
    with pytest.raises(UsageError, match="a list of sparsities is for one phase"):
        Pruner(net(), inter_epoch(0, 5, 0.7), allocation={"body": 0.5, "point": 0.5})
    with pytest.raises(UsageError, match="3 epochs or more"):
        inter_epoch(0, 2, 0.7)
    with pytest.raises(UsageError, match=r"in \(0, 1\); got 1"):
        inter_epoch(0, 5, 0.7, share=1)
    with pytest.raises(UsageError, match="matches no"):
        Pruner(net(), [Phase("ck", OneShot(0, 0.3)), Phase({"nothing": "ck"}, OneShot(2, 0.6))])


def test_a_jump_past_both_phases():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.05)
    pruner = Pruner(model, inter_epoch(1, 7, 0.7)).attach(optimizer, steps_per_epoch=2)
    pruner.set_epoch(30)
    train(model, [optimizer], [0])
    assert pruner.frozen
    assert pruner.layers["body"].kept == 1152 - int(0.7 * 1152)
