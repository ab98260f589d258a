"""Requests that cannot be met or that cost more than meant: one clear message each."""

import math
import warnings

import pytest
import torch
from pruner_nets import ERA, net, run, train
from torch import nn
from torch.optim import SGD

from campfire import Era, Mask, OneShot, Pruner
from campfire.errors import CampfireError, LostOutputs, NoEffect, UsageError
from campfire.structures.granularity import Fine


def weak_output() -> nn.Sequential:
    model = net()
    with torch.no_grad():
        model.body.weight[3] *= 1e-3
    return model


def test_lost_outputs_warn_once_a_layer():
    with pytest.warns(LostOutputs, match=r"body \(1 of 16\)") as caught:
        list(run(weak_output(), {"body": "ck"}, Era(0, 4, 0.6), epochs=6))
    assert sum(w.category is LostOutputs for w in caught) == 1


@pytest.mark.parametrize("spec", ["filter", "window", "fine-fc"])
def test_structures_that_mean_it_or_never_lose_one_do_not_warn(spec):
    model = net()
    with torch.no_grad():
        model.head.weight[3] *= 1e-3
    rules = {"head" if spec == "fine-fc" else "body": spec}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        *_, pruner = run(model, rules, OneShot(0, 0.5), epochs=2)
    assert pruner.frozen


def test_a_layer_that_would_lose_everything_is_an_error(monkeypatch):
    monkeypatch.setattr(Fine, "count", lambda self, shape, sparsity: 0 if sparsity else math.prod(shape))
    model = net()
    with pytest.raises(CampfireError, match="layer 'body' would lose everything; lower its sparsity"):
        list(run(model, {"body": "fine"}, OneShot(0, 0.5), epochs=1))
    assert model.body.weight.count_nonzero() == 1152


def test_a_target_of_zero_has_no_effect():
    with pytest.warns(NoEffect, match="target 0 removes nothing"):
        pruner = Pruner(net(), "ck", Era(0, 2, 0.0))
    model = pruner.model
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner.attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(4))
    assert (pruner.sparsity, pruner.masks, pruner.frozen) == (0.0, {}, True)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, math.nan])
def test_sparsity_outside_its_range(sparsity):
    with pytest.raises(UsageError, match=r"must lie in \[0, 1\)"):
        Pruner(net(), "ck", Era(0, 2, sparsity))


def test_a_missing_or_surplus_schedule():
    with pytest.raises(UsageError, match="needs a schedule, for instance Era"):
        Pruner(net(), "ck")
    with pytest.raises(UsageError, match="needs a schedule"):
        Pruner(net(), "ck", 0.7)


@pytest.mark.parametrize("every", [0, -3])
def test_every_is_positive(every):
    with pytest.raises(UsageError, match="every is a number of steps"):
        Pruner(net(), "ck", ERA, every=every)


def test_attaching_wrongly():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", ERA)
    with pytest.raises(UsageError, match="steps_per_epoch is the number of optimizer steps in an epoch; got 0"):
        pruner.attach(optimizer, steps_per_epoch=0)
    with pytest.raises(UsageError, match="no pruned weight is in the optimizer"):
        pruner.attach(SGD(net().parameters(), lr=0.1), steps_per_epoch=2)
    with pytest.raises(UsageError, match="no pruned weight is in the optimizer"):
        pruner.attach(SGD(model.head.parameters(), lr=0.1), steps_per_epoch=2)
    for wrong in ([], None, [model], torch.optim.lr_scheduler.StepLR(optimizer, 1)):
        with pytest.raises(UsageError, match="takes a torch optimizer, or several"):
            pruner.attach(wrong, steps_per_epoch=2)
    pruner.attach(optimizer, steps_per_epoch=2)  # nothing above left a trace
    train(model, [optimizer], range(2))
    assert pruner.steps == 2
    with pytest.raises(UsageError, match="attached already; call detach"):
        pruner.attach(optimizer, steps_per_epoch=2)


@pytest.mark.parametrize("epoch", [-1, math.nan, math.inf])
def test_set_epoch_to_no_epoch(epoch):
    with pytest.raises(UsageError, match="an epoch is a number from 0 on"):
        Pruner(net(), "ck", ERA).set_epoch(epoch)


def test_the_end_of_the_era_finds_illegal_masks():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, {"body": "ck"}, OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=2)
    train(model, [optimizer], [0])
    broken = pruner.masks["body"].keep.clone()
    broken[tuple(broken.nonzero()[0])] = False
    pruner.layers["body"].mask = Mask(broken)
    with pytest.raises(CampfireError, match="mask of layer 'body' is no 'ck': some units"):
        pruner.verify()
