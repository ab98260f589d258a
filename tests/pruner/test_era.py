"""Through the era: exact, nested, on time, frozen afterwards; with every structure, score and allocation."""

import math
import re
import warnings

import pytest
import torch
from pruner_nets import PRUNED, assert_true_to_masks, net, train
from torch import nn
from torch.optim import SGD, AdamW

from campfire import Era, Mask, OneShot, Pruner, Steps
from campfire.errors import CampfireError, LostOutputs, NoEffect, UsageError
from campfire.selection import guarded_floor
from campfire.structures import REGISTRY, named
from campfire.structures.granularity import Fine

ERA = Era(1, 4, 0.7)  # epochs 1 .. 5


def run(model: nn.Module, rules: object, schedule: object = ERA, epochs: int = 7, pace: int = 2, **kwargs: object):
    """A training; yields the pruner after every step."""
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = Pruner(model, rules, schedule, **kwargs).attach(optimizer, steps_per_epoch=pace)
    for step in range(epochs * pace):
        train(model, [optimizer], [step])
        yield pruner


def widest(model: nn.Module, spec: str) -> dict[object, str]:
    """The structure wherever it fits."""
    return {lambda name, module: not structure_misfits(spec, module): spec}


def structure_misfits(spec: str, module: nn.Module) -> list[str]:
    shape = tuple(module.weight.shape)
    return named(spec).why_not(shape if len(shape) == 4 else (*shape, 1, 1))


SPECS = [
    *sorted(REGISTRY),
    "window:mode=campfire",
    "window:mode=mixed",
    "combined:share=0.5",
    "combined:literal=true",
    "2:4",
    "block:n=2",
    "two-tier:n=2",
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_structure_is_nested_and_exact(spec):
    model = net()
    previous: dict[str, Mask] = {}
    for pruner in run(model, widest(model, spec)):
        for name, layer in pruner.layers.items():
            assert layer.kept == layer.structure.count(layer.target.shape, layer.requested)
            mask = layer.mask
            if mask is not None:
                assert layer.kept == int(mask.keep.sum())
                assert not layer.structure.why_invalid(mask)
            if name in previous:
                assert mask is not None
                assert not (mask.keep & ~previous[name].keep).any(), f"{name}: the dead came back"
        previous = pruner.masks
    assert pruner.frozen
    assert {layer.requested for layer in pruner.layers.values()} == {0.7}
    assert_true_to_masks(pruner)


@pytest.mark.parametrize("sparsity", [0.2, 0.4, 0.6, 0.7, 0.8])
def test_ck_removes_exactly_its_floor_of_kernels_in_each_layer(sparsity):
    *_, pruner = run(net(), "ck", Era(0, 2, sparsity), epochs=3)
    for row in pruner.report().layers:
        if row.structure:
            assert row.kernels - row.kept_kernels == guarded_floor(sparsity * row.kernels)


def test_the_era_keeps_the_papers_time():
    """Eq. 1: nothing before the start, the target in epoch start + length, and it stands still inside an epoch."""
    history = [pruner.layers["body"].kept for pruner in run(net(), "ck", ERA, pace=2)]
    kernels = [128 - guarded_floor(ERA(epoch) * 128) for epoch in range(7) for _ in range(2)]
    assert history == [9 * kept for kept in kernels]
    assert history[:4] == [1152] * 4  # e = start: s = 0
    assert history[9] > history[10] == history[-1]


def test_by_step_the_target_moves_with_every_step():
    era = Era(0, 2, 0.8, by="step")
    history = [1 - pruner.layers["point"].kept / 256 for pruner in run(net(), "ck", era, pace=5, epochs=3)]
    assert history == [1 - (256 - guarded_floor(era(i / 5) * 256)) / 256 for i in range(15)]
    assert len(set(history)) == 10


def test_every_thins_the_updates_but_never_the_last():
    era = Era(0, 2, 0.8, by="step")
    history = [pruner.layers["point"].kept for pruner in run(net(), "ck", era, pace=5, epochs=3, every=4)]
    changes = [i for i in range(1, 15) if history[i] != history[i - 1]]
    assert changes == [4, 8, 10]  # step 10 reaches the target
    assert history[-1] == 256 - guarded_floor(0.8 * 256)


def test_masks_do_not_change_after_the_era():
    sums = []
    for pruner in run(net(), "fine", Era(0, 1, 0.5), epochs=6):
        if pruner.frozen:
            sums.append({n: m.checksum() for n, m in pruner.masks.items()})
    assert len(sums) == 9  # from the last step of epoch 1 on
    assert all(s == sums[0] for s in sums)


def test_a_jump_past_the_era_reaches_the_target_in_one_step():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", ERA).attach(optimizer, steps_per_epoch=2)
    train(model, [optimizer], [0])
    pruner.set_epoch(40)
    assert not pruner.frozen
    train(model, [optimizer], [1])
    assert pruner.frozen
    assert pruner.layers["point"].kept == 256 - guarded_floor(0.7 * 256)
    assert_true_to_masks(pruner, optimizer)


def test_a_falling_target_changes_nothing():
    """Methods U-13, monotone: s falls from .6 to .5, the mask is unchanged."""
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", Steps(((0, 0.5), (2, 0.6)))).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(4))
    before = pruner.state_dict()["layers"]
    pruner.set_epoch(0)
    train(model, [optimizer], range(4, 6))
    after = pruner.state_dict()["layers"]
    assert all(torch.equal(before[n]["bits"], after[n]["bits"]) for n in before)
    assert after["point"]["requested"] == 0.6
    assert_true_to_masks(pruner, optimizer)


def test_set_epoch_for_loops_that_know_better():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", Era(0, 3, 0.6)).attach(optimizer, steps_per_epoch=100)
    for epoch, length in enumerate((2, 1, 3, 2)):
        pruner.set_epoch(epoch)
        train(model, [optimizer], range(length))
        assert pruner.layers["point"].requested == pytest.approx(Era(0, 3, 0.6)(epoch))
        assert int(pruner.epoch) == epoch


# --- scores ----------------------------------------------------------------------------------------------------------


def test_taylor_prunes_by_weight_times_gradient():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.0)
    pruner = Pruner(model, {"point": "fine"}, OneShot(0, 0.5), score="taylor").attach(optimizer, steps_per_epoch=1)
    pruner.set_epoch(0)
    train(model, [optimizer], [0])
    model = net()
    train(model, [SGD(model.parameters(), lr=0.0)], [0])
    score = (model.point.weight * model.point.weight.grad).square().flatten()
    assert torch.equal(pruner.masks["point"].keep.flatten().nonzero(), score.argsort()[128:].sort().values[:, None])


def test_taylor_without_gradients_says_so():
    model = net()
    model.body.requires_grad_(False)
    optimizer = SGD(model.parameters(), lr=0.1)
    Pruner(model, "ck", OneShot(0, 0.5), score="taylor").attach(optimizer, steps_per_epoch=1)
    with pytest.raises(UsageError, match="taylor score needs a gradient"):
        train(model, [optimizer], [0])


def test_random_depends_on_the_seed_alone():
    def sums(seed: int, start: int) -> dict[str, str]:
        *_, pruner = run(net(start), "ck", OneShot(0, 0.5), epochs=1, score="random", seed=seed)
        return {n: m.checksum() for n, m in pruner.masks.items()}

    assert sums(0, 0) == sums(0, 1) != sums(1, 0)


def test_a_score_of_ones_own():
    *_, pruner = run(net(), {"point": "fine"}, OneShot(0, 0.5), epochs=1, score=lambda weight, grad: 1 / weight.abs())
    weight = net().point.weight.detach()
    assert pruner.masks["point"].keep[weight.abs() < 0.05].float().mean() > 0.9


def test_a_score_of_the_wrong_shape():
    with pytest.raises(UsageError, match=r"for layer 'body' \(16, 8, 3, 3\) it returned \(16,\)"):
        list(run(net(), "ck", OneShot(0, 0.5), epochs=1, score=lambda w, g: w.abs().sum((1, 2, 3))))


def test_scores_that_are_not_numbers():
    with pytest.raises(CampfireError, match="NaN"):
        list(run(net(), "ck", OneShot(0, 0.5), epochs=1, score=lambda w, g: w * torch.nan))


# --- allocations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", ["uniform", "erk", "global"])
def test_allocations_meet_the_target_in_all(allocation):
    *_, pruner = run(net(), "fine", Era(0, 3, 0.7), epochs=4, allocation=allocation)
    assert pruner.sparsity == pytest.approx(0.7, abs=0.002)
    body, point = (row.true for row in pruner.report().layers if row.structure)
    assert (abs(body - point) < 0.002) == (allocation == "uniform")


def test_a_given_list():
    *_, pruner = run(net(), "ck", Era(0, 2, 0.7), epochs=3, allocation={"body": 0.5, "point": 0.25})
    assert {row.name: row.true for row in pruner.report().layers if row.structure} == {"body": 0.5, "point": 0.25}


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        ({"body": 0.5}, "missing: point"),
        ({"body": 0.5, "point": 0.5, "head": 0.5}, "not pruned: head"),
        ({"body": 0.5, "point": 1.0}, r"in \[0, 1\); layer 'point' got 1.0"),
        ({"body": -0.1, "point": 0.5}, r"in \[0, 1\); layer 'body' got -0.1"),
        ({"body": math.nan, "point": 0.5}, "layer 'body' got nan"),
    ],
)
def test_a_wrong_list_is_told_before_training(allocation, message):
    with pytest.raises(UsageError, match=message):
        Pruner(net(), "ck", ERA, allocation=allocation)


def test_an_allocation_that_forgets_a_layer():
    with pytest.raises(UsageError, match="layer 'point' got None"):
        list(run(net(), "ck", OneShot(0, 0.5), epochs=1, allocation=lambda shapes, s, saliency: {"body": s}))


# --- losses ----------------------------------------------------------------------------------------------------------


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


# --- requests that cannot be met ---------------------------------------------------------------------------------------


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


# --- the report ------------------------------------------------------------------------------------------------------


def test_report_is_what_a_recount_of_the_weights_says():
    model = net()
    rules = {"stem": None, "body": "window:mode=campfire", "point": "ck", "head": "fine-fc"}
    *_, pruner = run(model, rules, Era(0, 2, 0.6), epochs=3)
    report = pruner.report()
    assert [r.name for r in report.layers] == ["stem", "body", "point", "head"]
    for row in report.layers:
        weight = model.get_submodule(row.name).weight.detach()
        kernels = weight.reshape(weight.shape[0] * weight.shape[1], -1)
        assert row.kept_weights == int(weight.count_nonzero())
        assert row.weights == weight.numel()
        assert row.kept_kernels == int(kernels.any(1).sum())
        assert row.kernels == len(kernels)
        assert row.true == pytest.approx(float((weight == 0).float().mean()))
        assert row.requested == (0.6 if row.structure else 0.0)
        assert (row.reason is None) == (row.structure is not None)
    convs = [model.stem.weight, model.body.weight, model.point.weight]
    assert report.convs.weights == sum(w.numel() for w in convs)
    assert report.convs.kept == sum(int(w.count_nonzero()) for w in convs)
    assert report.model.weights == sum(p.numel() for p in model.parameters())
    zeros = sum(int((model.get_submodule(n).weight == 0).sum()) for n in ("body", "point", "head"))
    assert report.model.weights - report.model.kept == zeros
    assert pruner.sparsity == report.pruned.sparsity == pytest.approx(1 - report.pruned.kept / report.pruned.weights)


def test_report_reads_well():
    *_, pruner = run(net(), {"body": "window:mode=campfire", "head": None}, Era(0, 2, 0.6), epochs=3)
    text = str(pruner.report())
    assert re.search(r"body +16x8x3x3 +window:mode=campfire +0\.600 +0\.778 +256 / 1,152 +128 / 128", text)
    assert re.search(r"stem +8x3x3x3 +dense: no rule matches it", text)
    assert re.search(r"head +10x64x1x1 +dense: a rule leaves it dense", text)
    assert "whole model: 0.3" in text


def test_report_before_anything_happened():
    report = Pruner(net(), "ck", ERA).report()
    assert report.pruned.sparsity == 0.0
    assert [r.true for r in report.layers] == [0.0] * 4
    assert {r.shape for r in report.layers if r.structure} == set(PRUNED.values())


def test_adamw_reaches_the_same_counts():
    model = net()
    optimizer = AdamW(model.parameters(), lr=0.01)
    pruner = Pruner(model, "ck", ERA).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(7))
    assert [layer.kept for layer in pruner.layers.values()] == [9 * 39, 77]
