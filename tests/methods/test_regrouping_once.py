"""How often outputs are regrouped: once in a run, at updates of methods that regrow, and never in a step between them."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, Steps
from campfire.structures.hrbp import HRBP

CONSTANT = Era(0, 4, 0.5, initial=0.5, by="step")
PACE, STEPS = 5, 30

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """How many plans were made: from nothing, and from the groups before."""
    counts, plan, replan = Counter(), HRBP.plan, HRBP.replan

    def counted_plan(self, *args):
        counts["plan"] += 1
        return plan(self, *args)

    def counted_replan(self, *args):
        counts["replan"] += 1
        return replan(self, *args)

    monkeypatch.setattr(HRBP, "plan", counted_plan)
    monkeypatch.setattr(HRBP, "replan", counted_replan)
    return counts


def trained(method: str, schedule, lr: float = 0.1, made: Counter | None = None) -> tuple[Pruner, list[int]]:
    """A network of two pruned layers after 30 steps, and how many plans there were after each."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 1), nn.Flatten())
    optimizer = SGD(net.parameters(), lr=lr)
    pruner = Pruner(net, "hrbp:rows=4,channels=2", schedule, method=method).attach(optimizer, PACE)
    seen = []
    for number in range(STEPS):
        optimizer.zero_grad()
        net(torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(number))).square().mean().backward()
        optimizer.step()
        seen.append(0 if made is None else made.total())
    return pruner, seen


@pytest.mark.parametrize(
    ("method", "schedule"),
    [("gradual", Era(1, 3, 0.5)), ("zhu-gupta", Era(1, 3, 0.5, by="step")), ("iterative", Steps(((1, 0.2), (3, 0.5)))),
     ("snip", OneShot(0, 0.5)), ("lottery", Steps(((1, 0.2), (3, 0.5))))],
)  # fmt: skip
def test_masks_that_only_tighten_are_planned_once(method: str, schedule, made: Counter) -> None:
    pruner, seen = trained(method, schedule, made=made)
    assert pruner.frozen
    assert pruner.stages[0].updates >= 1
    assert made == {"plan": 2}
    assert set(seen) <= {0, 2}


@pytest.mark.parametrize("method", ["rigl:updates=4", "set:updates=4", "dsr:updates=15,threshold=0.05"])
def test_methods_that_regrow_plan_again_at_updates_only(method: str, made: Counter) -> None:
    pruner, seen = trained(method, CONSTANT, made=made)
    assert made["plan"] == 2
    assert 0 < made["replan"] <= 2 * pruner.stages[0].updates
    assert len(set(seen)) <= pruner.stages[0].updates + 1


def test_a_layer_in_which_nothing_died_is_left_alone(made: Counter) -> None:
    """DeepR looks at every layer in every step."""
    trained("deepr:hot=1e-30,cold=1e-30,l1=0", CONSTANT, lr=1e-6, made=made)
    assert made == {"plan": 2}


def test_groups_may_stay_as_they_are(made: Counter) -> None:
    pruner, _ = trained("rigl:updates=4,regroup=false", CONSTANT, made=made)
    assert pruner.stages[0].updates == 5
    assert made == {"plan": 2}


def test_planning_again_begins_where_the_groups_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cut, no clustering; and where nothing is to be gained, nothing moves."""
    generator = torch.Generator().manual_seed(0)
    score, structure = torch.rand(72, 16, 3, 3, generator=generator), HRBP(rows=16, channels=2)
    plan = structure.plan(score, 0.75)

    def never(*_: object) -> None:
        raise AssertionError("planned from nothing")

    for name in ("by_cut", "by_likeness"):
        monkeypatch.setattr(f"{HRBP.__module__}.{name}", never)
    again = structure.replan(score, 0.75, plan)
    assert torch.equal(again["order"], plan["order"])
    other = torch.rand(score.shape, generator=generator)
    moved = structure.replan(other, 0.75, plan)
    assert not torch.equal(moved["order"], plan["order"])
    assert torch.equal(moved["order"][64:], plan["order"][64:])  # the outputs left over are those of the first plan
    alive = torch.ones_like(score, dtype=torch.bool)
    count = structure.count(tuple(score.shape), 0.75)
    kept = [float((other * structure.project(other, count, p, alive)).sum()) for p in (moved, plan)]
    assert kept[0] > kept[1]
