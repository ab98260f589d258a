"""The race of plans: every one runs as planned, in turns, and leaves no trace."""

import contextlib
import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from campfire import tune_
from campfire.compress import race as racing
from campfire.compress.originals import Originals
from campfire.compress.race import race
from campfire.errors import UsageError
from campfire.mask import Mask
from campfire.nn import SparseConv2d
from campfire.nn.base import SparseLayer
from campfire.nn.entrances import entrances, open_


class Net(nn.Module):
    """Notes the choice it runs with; drops out, counts in a buffer, returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        keep = torch.rand(32, 32, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.3
        self.body = nn.Sequential(SparseConv2d.of(nn.Conv2d(32, 32, 3, padding=1), Mask(keep), kernel="auto"))
        self.norm, self.drop = nn.BatchNorm2d(32), nn.Dropout()
        self.ran: list[tuple[str, bool, bool, dict[str, str]]] = []

    def forward(self, x: Tensor) -> dict[str, object]:
        layer = self.body[0]
        what = str(layer.choice()) if isinstance(layer, SparseLayer) else type(layer).__name__
        self.ran.append((what, self.training, torch.is_grad_enabled(), entrances(self)))
        return {"logits": [self.drop(self.norm(self.body(x)))], "count": 3}


def images() -> Tensor:
    return torch.randn(2, 32, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("training", [True, False])
def test_plans_take_turns_and_leave_no_trace(monkeypatch: pytest.MonkeyPatch, training: bool) -> None:
    model = Net().eval()
    plan = tune_(model, images(), training, by="model")
    dense = tune_(model, images(), training, by="off")
    open_(model, {"body": "nhwc"}, torch.bfloat16)  # of another dtype: it stays
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    turns: list[str] = []
    monkeypatch.setattr(
        racing,
        "interleaved",
        lambda runs, rounds, clock: {n: [run() or turns.append(n) or 2.0 + len(n)] for n, run in runs.items()},
    )
    model.ran.clear()
    assert race(model, images(), training, {"a": plan, "dense": dense}) == {"a": 10 / 3, "dense": 10 / 7}
    assert turns == ["original", "a", "dense"]
    choices = ["Conv2d", "Conv2d", *(str(p.layers[0].choice) for p in (plan, dense))]
    assert isinstance(model.body[0], SparseConv2d)
    assert model.ran == [(choice, training, training, {"body": "nhwc"}) for choice in choices]
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def test_entrances_change_with_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net()
    dense = tune_(model, images(), by="off")
    entering = dataclasses.replace(dense, entrances={"body": "nhwc"})
    monkeypatch.setattr(
        racing, "interleaved", lambda runs, rounds, clock: {n: [run() or 1.0] for n, run in runs.items()}
    )
    model.ran.clear()
    race(model, images(), True, {"dense": dense, "in": entering})
    assert [ran[-1] for ran in model.ran] == [{}, {}, {}, {"body": "nhwc"}]


def test_models_that_do_not_run_by_themselves_are_not_timed() -> None:
    model = Net()
    dense = tune_(model, images(), by="off")
    assert race(model, torch.zeros(2, 3), True, {"dense": dense}) is None


@pytest.mark.parametrize("alone", [True, False])
def test_the_dense_model_computes_the_same_and_comes_and_goes(alone: bool) -> None:
    layer = Net().body[0]
    assert isinstance(layer, SparseConv2d)
    model = layer if alone else nn.ModuleDict({"one": layer, "other": nn.Sequential(layer, nn.ReLU())})
    weight, before = layer.value.detach().clone(), list(model.named_modules())
    expected = layer(images())
    with contextlib.suppress(ZeroDivisionError), Originals(model).in_place() as dense:
        for module in [dense] if alone else [dense["one"], dense["other"][0]]:
            assert type(module) is nn.Conv2d
            torch.testing.assert_close(module(images()), expected)
        raise ZeroDivisionError  # what fails inside leaves nothing behind
    assert list(model.named_modules()) == before
    assert torch.equal(layer.value, weight)


class Wants(nn.Module):
    """Labels in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Net().body

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        y = self.body(x).mean((2, 3))
        return nn.functional.cross_entropy(y, labels.view(-1)) if self.training else y  # pyright: ignore


def test_a_model_that_wants_more_is_tuned_by_its_layers() -> None:
    plan = tune_(Wants(), images())
    assert plan.whole is None
    assert [layer.name for layer in plan.layers] == ["body.0"]


def test_little_memory_is_not_taken_for_a_model_that_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(racing, "_pass", full)
    model = Net()
    plan = tune_(model, images(), by="model")
    with pytest.raises(torch.OutOfMemoryError):
        race(model, images(), True, {"dense": plan})


class Viewed(Wants):
    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        y = self.body(x)
        return y.view(y.size(0), -1)


def test_a_model_that_flattens_by_view() -> None:
    with pytest.raises(UsageError, match="write flatten or reshape for view"):
        tune_(Viewed(), images())
