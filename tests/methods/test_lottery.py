"""Lottery tickets: survivors return to where they were, everything else too, and the learning rate with them."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from campfire import OneShot, Pruner, Steps, inter_epoch
from campfire.errors import DoesNotFit, UsageError
from campfire.methods import named

ROUNDS = Steps(((2, 0.4), (4, 0.7)))


def train(rewind: float, steps: int, cls: Any = SGD):
    """States of the model before each of the steps, two an epoch, and after the last."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3), nn.Flatten())
    optimizer = cls(net.parameters(), lr=0.05)
    pruner = Pruner(net, {"2": "fine"}, ROUNDS, method=f"lottery:rewind={rewind}").attach(optimizer, 2)
    states = []
    for number in range(steps):
        states.append({n: x.clone() for n, x in net.state_dict().items()})
        optimizer.zero_grad()
        net(torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(number))).square().mean().backward()
        optimizer.step()
    states.append({n: x.clone() for n, x in net.state_dict().items()})
    return states, pruner, optimizer


@pytest.mark.parametrize("rewind", [0, 1])
@pytest.mark.parametrize("cls", [SGD, AdamW])
@pytest.mark.parametrize(("steps", "sparsity"), [(5, 0.4), (9, 0.7)])
def test_everything_returns(rewind: int, cls: Any, steps: int, sparsity: float) -> None:
    states, pruner, optimizer = train(rewind, steps, cls)
    origin, keep = states[2 * rewind], pruner.masks["2"].keep
    assert pruner.sparsity == pytest.approx(sparsity, abs=0.01)
    assert not torch.equal(states[4]["0.weight"], origin["0.weight"])
    origin |= {
        n: x for n, x in states[2 * rewind + 1].items() if n.startswith("1.") and "weight" not in n and "bias" not in n
    }
    for name, now in states[-1].items():
        assert torch.equal(now, origin[name] * keep if name == "2.weight" else origin[name]), name
    assert not optimizer.state


def test_the_learning_rate_returns_too() -> None:
    method: Any = named("lottery:rewind=0.5")
    stages: Any = [type("Stage", (), {"schedule": ROUNDS})]
    times = {e: method.lr_time(stages, e, 8) for e in (0, 1.9, 2, 3.5, 4, 7)}
    assert times == {0: (0, 2), 1.9: (1.9, 2), 2: (0.5, 2.5), 3.5: (2.0, 2.5), 4: (0.5, 4.5), 7: (3.5, 4.5)}


def test_others_do_not_touch_the_learning_rate() -> None:
    assert named("gradual").lr_time([], 3.0, 9) == (3.0, 9)


def test_what_it_refuses() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3))
    with pytest.raises(DoesNotFit, match="rewinds to epoch 2, and the schedule prunes at epoch 1"):
        Pruner(net, "ck", OneShot(1, 0.5), method="lottery:rewind=2")
    with pytest.raises(DoesNotFit, match="prunes at the epochs of a Steps schedule, and Era has none"):
        Pruner(net, inter_epoch(1, 4, 0.5), method="lottery")
    with pytest.raises(UsageError, match="rewind is the epoch"):
        named("lottery:rewind=-1")


class Counted(nn.Tanh):
    """Holds more than tensors in its state."""

    def get_extra_state(self) -> dict[str, int]:
        return {"calls": 3}

    def set_extra_state(self, state: Any) -> None:
        return


def test_a_model_whose_state_is_not_of_tensors_alone() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), Counted(), nn.Conv2d(4, 8, 3), nn.Flatten())
    first = net[0].weight.detach().clone()
    optimizer = SGD(net.parameters(), lr=0.05)
    pruner = Pruner(net, {"2": "fine"}, ROUNDS, method="lottery").attach(optimizer, 2)
    for _ in range(5):
        optimizer.zero_grad()
        net(torch.randn(2, 2, 6, 6)).square().mean().backward()
        optimizer.step()
    assert pruner.sparsity == pytest.approx(0.4, abs=0.01)
    assert torch.equal(net[0].weight, first)


def test_a_state_of_before_the_rewinding_point_forgets_it() -> None:
    _, pruner, _ = train(1, 4)
    assert "origin" in pruner.method.memory
    early = Pruner(pruner.model, {"2": "fine"}, ROUNDS, method="lottery:rewind=1").state_dict()
    pruner.load_state_dict(early)
    assert not pruner.method.memory
