"""What decides which weights go: scores and allocations."""

import math

import pytest
import torch
from pruner_nets import ERA, net, run, train
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, Steps
from campfire.errors import CampfireError, UsageError
from campfire.structures.combined import Combined


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


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kwargs", "goal"),
    [
        ({"schedule": Era(0, 3, 0.7)}, 0.7),
        ({"schedule": Era(0, 3, 0.7), "allocation": {"body": 0.5}}, 0.5),
        (
            {"schedule": Steps(((0, 0.3), (2, 0.6))), "method": "iterative:threshold=0.1", "allocation": {"body": 0.5}},
            0.6,  # by threshold only the schedule caps
        ),
    ],
)
def test_a_plan_is_made_once_and_for_the_final_sparsity(kwargs, goal, monkeypatch):
    goals, plan = [], Combined.plan
    monkeypatch.setattr(Combined, "plan", lambda self, score, goal: goals.append(goal) or plan(self, score, goal))
    *_, pruner = run(net(), {"body": "combined"}, epochs=4, **kwargs)
    assert goals == [goal]
    assert float(pruner.masks["body"].plan["goal"]) == goal


def test_the_dead_have_no_saliency():
    *_, pruner = run(net(), "ck", OneShot(0, 0.5), epochs=1, score="random")
    saliencies = pruner.saliencies(pruner.stages[0])
    for name, mask in pruner.masks.items():
        assert torch.equal(saliencies[name] > 0, mask.keep.flatten())
