"""ClickTrain: its four modes, what it chooses by, the lasso against autograd in float64, and refusals."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner
from campfire.errors import CheckpointError, DoesNotFit, UsageError
from campfire.methods import named
from campfire.methods.clicktrain import ClickTrain
from campfire.methods.group_lasso import GroupLasso
from campfire.structures import books
from campfire.testing import check_method

PACE = 3
pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")
ERA = Era(1, 2, 0.8, by="step")


def bound(method: str = "clicktrain:batches=2", schedule=ERA, lr: float = 0.05, **options: Any):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 10, 3), nn.Conv2d(10, 8, 1), nn.Flatten())
    optimizer = SGD(net.parameters(), lr=lr)
    rules = {"2": "pattern:book=fixed8", "3": "pattern"}
    return net, optimizer, Pruner(net, rules, schedule, method=method, **options).attach(optimizer, PACE)


def step(net: nn.Module, optimizer, pruner: Pruner, number: int) -> None:
    optimizer.zero_grad()
    loss = net(torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(number))).square().mean()
    (loss + pruner.penalty()).backward()
    optimizer.step()


def test_four_modes() -> None:
    net, optimizer, pruner = bound()
    modes, penalties, sparsity = [], [], []
    for number in range(12):
        modes.append(pruner.method.mode(pruner, pruner.epoch))
        penalties.append(float(torch.as_tensor(pruner.penalty()).detach()) > 0)
        step(net, optimizer, pruner, number)
        sparsity.append(pruner.sparsity)
    assert modes == ["plain"] * 3 + ["select"] * 2 + ["regularise"] * 5 + ["hard"] * 2
    assert penalties == [mode == "regularise" for mode in modes]
    assert [x > 0 for x in sparsity] == [False] * 9 + [True] * 3
    assert pruner.frozen
    assert pruner.sparsity == pytest.approx(0.8, abs=0.02)


def test_patterns_and_kernels_are_the_best_by_the_importance_of_a_few_batches() -> None:
    net, optimizer, pruner = bound(lr=0.0, schedule=Era(0, 4, 0.8, by="step"))
    wanted = {2: torch.zeros(10, 6, 3, 3), 3: torch.zeros(8, 10, 1, 1)}
    for number in range(2):
        step(net, optimizer, pruner, number)
        for layer, total in wanted.items():
            total += (net[layer].weight * net[layer].weight.grad).detach().square()
    thin, living = pruner.method.memory["parts"]["2"]
    kernels, book = wanted[2].view(60, 9), torch.tensor([books.pattern(n) for n in books.FIXED[:8]])
    assert torch.equal(thin.view(60, 9), book[(kernels @ book.float().t()).argmax(1)])
    dead = math.floor((0.8 - 5 / 9) * 9 * 60 / 4)
    order = kernels.sum(1).argsort()
    assert not living.flatten(2).any(2).flatten()[order[:dead]].any()
    assert living.flatten(2).all(2).flatten()[order[dead:]].all()
    (points,) = pruner.method.memory["parts"]["3"]
    assert not points.flatten()[wanted[3].flatten().argsort()[:64]].any()


def test_what_was_chosen_is_what_goes() -> None:
    """Although the weights and gradients at e2 are others."""
    for structure in ("pattern:balanced=true", "hrbp:rows=2,channels=2", "combined", "ck"):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Conv2d(6, 10, 3), nn.Flatten())
        optimizer = SGD(net.parameters(), lr=0.5, momentum=0.9)
        pruner = Pruner(net, {"2": structure}, ERA, method="clicktrain:batches=1").attach(optimizer, PACE)
        for number in range(5):
            step(net, optimizer, pruner, number)
        first, *others = pruner.method.memory["parts"]["2"]
        for part in others:
            first = first & part
        for number in range(5, 11):
            step(net, optimizer, pruner, number)
        assert torch.equal(pruner.layers["2"].keep, first), structure


def test_masks_are_chosen_in_a_short_run_too() -> None:
    net, optimizer, pruner = bound("clicktrain:batches=99", Era(1, 1, 0.5, by="step"))
    for number in range(7):
        step(net, optimizer, pruner, number)
    assert pruner.sparsity == pytest.approx(0.5, abs=0.02)


def dense_lasso(weight: Tensor, masks: list[Tensor]) -> Tensor:
    """In float64, as the paper's code writes it."""
    w = weight.double()
    return sum(((w * ~m).square().sum((2, 3)) + 1e-8).sqrt().sum() for m in masks)  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("shape", [(7, 5, 3, 3), (6, 9, 1, 1)])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_lasso_and_its_gradient(shape: tuple[int, ...], form: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).contiguous(memory_format=form).requires_grad_()
    thin = torch.rand(shape, generator=generator) > 0.5
    living = (torch.rand(shape[:2], generator=generator) > 0.5)[:, :, None, None].expand(shape)
    masks = [thin, living]
    with torch.no_grad():
        weight[0, 0] = 0.0
    exact = weight.detach().double().requires_grad_()
    dense_lasso(exact, masks).backward()
    lasso = GroupLasso({"a": masks, "b": [living]})
    twice = {"a": weight, "b": weight.detach()}
    expected = dense_lasso(weight.detach(), masks) + dense_lasso(weight.detach(), [living])
    assert float(lasso(twice).detach()) == pytest.approx(float(expected), rel=1e-6)
    (3 * lasso(twice)).backward()
    assert weight.grad is not None
    assert exact.grad is not None
    assert torch.allclose(weight.grad.double(), 3 * exact.grad, rtol=1e-5, atol=1e-7)
    assert weight.grad.isfinite().all()


def test_gradients_do_not_share_the_memory_that_is_kept() -> None:
    weight = torch.randn(4, 3, 3, 3).requires_grad_()
    lasso = GroupLasso({"a": [torch.rand(4, 3, 3, 3) > 0.5]})
    first = lasso({"a": weight})
    first.backward()
    assert weight.grad is not None
    kept, other = weight.grad, weight.grad.clone()
    (lasso({"a": weight}) + (2 * weight).sum()).backward()
    assert torch.allclose(weight.grad, 2 * other + 2)
    weight.grad = None
    stale = lasso({"a": weight})
    lasso({"a": weight.detach() + 1})
    assert torch.allclose(kept, 2 * other + 2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()


def test_u7_terms() -> None:
    weight, one = {"a": torch.arange(1.0, 10).view(1, 1, 3, 3)}, torch.ones(1, 1, 3, 3, dtype=torch.bool)
    first = torch.tensor(books.pattern(3)).view(1, 1, 3, 3)
    assert float(GroupLasso({"a": [first]})(weight)) == pytest.approx(8.888194, abs=1e-6)
    assert float(GroupLasso({"a": [~one]})(weight)) == pytest.approx(16.881943, abs=1e-6)  # a kernel that is to die
    assert float(GroupLasso({"a": [one]})(weight)) == pytest.approx(1e-4)


def test_the_lasso_presses_on_what_is_to_go() -> None:
    net, optimizer, pruner = bound("clicktrain:batches=1,lam=0.2", Era(0, 10, 0.8, by="step"), lr=0.1)
    step(net, optimizer, pruner, 0)
    outside = ~torch.stack(list(pruner.method.memory["parts"]["2"])).all(0)
    before = net[2].weight.detach().clone()
    for number in range(1, 20):
        step(net, optimizer, pruner, number)
    shrunk = net[2].weight.detach().abs() / before.abs()
    assert shrunk[outside].median() < 0.5 * shrunk[~outside].median()


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_resume_while_choosing_and_while_regularising(stop: int) -> None:
    def run(steps: range, net, optimizer, pruner):
        for number in steps:
            step(net, optimizer, pruner, number)

    whole = bound("clicktrain:batches=3")
    run(range(12), *whole)
    first, second = bound("clicktrain:batches=3"), bound("clicktrain:batches=3")
    run(range(stop), *first)
    second[0].load_state_dict(first[0].state_dict())
    second[2].load_state_dict(first[2].state_dict())
    run(range(stop, 12), *second)
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True))


def test_a_damaged_state_is_refused() -> None:
    net, optimizer, pruner = bound()
    for number in range(6):
        step(net, optimizer, pruner, number)
    state = pruner.state_dict()
    for spoil in (
        lambda s: s["parts"].pop("3"),
        lambda s: s["parts"].update({"3": []}),
        lambda s: s["parts"].update({"2": [s["parts"]["2"][0][:-1]]}),
        lambda s: s.pop("sums"),
        lambda s: s.update(sums={"2": torch.full((10, 6, 3, 3), math.nan)}),
    ):
        saved = pruner.state_dict()
        spoil(saved["method"]["state"])
        with pytest.raises(CheckpointError):
            bound()[2].load_state_dict(saved)
    bound()[2].load_state_dict(state)


def test_e2_must_come_after_e1() -> None:
    with pytest.raises(DoesNotFit, match="got e1 = 2 and e2 = 2"):
        bound(schedule=OneShot(2, 0.5))
    with pytest.raises(UsageError, match="length > 0"):
        Era(3, -1, 0.5)
    with pytest.raises(UsageError, match="lam is >= 0 and batches are 1 or more"):
        named("clicktrain:batches=0")


def test_a_layer_without_gradients_at_e1_is_named() -> None:
    net, optimizer, pruner = bound(schedule=Era(0, 2, 0.5, by="step"))
    net[3].weight.requires_grad_(False)
    with pytest.raises(UsageError, match="layer '3' has none in this step"):
        step(net, optimizer, pruner, 0)


def test_conformance_with_patterns() -> None:
    rising = Era(1, 3, 0.8, by="step")
    assert check_method("clicktrain:batches=2", ["pattern"], [rising], allocation="global") == 1
    assert check_method("clicktrain", ["pattern:balanced=true", "hrbp:rows=4"], [Era(1, 3, 0.5)]) == 2
    assert check_method("gradual", ["pattern"], [rising]) == 1
    assert str(ClickTrain(batches=2)) == "clicktrain:batches=2"


def test_what_was_loaded_is_cut_where_the_weights_lie() -> None:
    """Masks of a state lie on the CPU; "meta" stands for a GPU."""
    net, optimizer, pruner = bound()
    for number in range(6):
        step(net, optimizer, pruner, number)
    resumed, there = bound()[2], {}
    resumed.load_state_dict(pruner.state_dict())
    weights = {n: x.weight.detach().to("meta") for n, x in pruner.layers.items()}
    host: Any = SimpleNamespace(
        stages=resumed.stages,
        weights=lambda stage: weights,
        update=lambda stage, target, scores: there.update({n: x.device.type for n, x in scores.items()}),
    )
    resumed.method.after_step(host, 3.0)
    assert there == {"2": "meta", "3": "meta"}


@pytest.mark.parametrize("gap", [2, 3])
def test_weights_with_gaps_in_memory(gap: int) -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(8, 4 * gap, 3, 3, generator=generator)
    ends = []
    for weight in (whole.clone()[:, ::gap], whole[:, ::gap].contiguous()):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 8, 3), nn.Flatten())
        net[2].weight = nn.Parameter(weight)
        optimizer = SGD(net.parameters(), lr=0.05)
        pruner = Pruner(net, {"2": "pattern"}, ERA, method="clicktrain:batches=1,lam=0.1").attach(optimizer, PACE)
        for number in range(8):
            step(net, optimizer, pruner, number)
        kept = pruner.method.memory["lasso"]._layers["2"]
        pruner.penalty()
        assert pruner.method.memory["lasso"]._layers["2"] is kept  # its memory serves again
        for number in range(8, 12):
            step(net, optimizer, pruner, number)
        ends.append(net[2].weight.detach().clone())
    assert pruner.frozen
    assert torch.allclose(ends[0], ends[1], atol=1e-6)


def test_importance_over_steps_between_which_the_scale_changes() -> None:
    """A fused optimizer has the factor of GradScaler taken off inside its step."""
    sums = []
    for scales in ([1.0, 1.0], [2.0**10, 2.0]):
        net, _, pruner = bound("clicktrain:batches=9", Era(0, 2, 0.8, by="step"))
        pruner.detach()
        optimizer = SGD(net.parameters(), lr=0.05, fused=True)
        pruner.attach(optimizer, 30)
        scaler = torch.amp.GradScaler("cpu")  # pyright: ignore[reportPrivateImportUsage]
        for number, scale in enumerate(scales):
            optimizer.zero_grad()
            scaler.scale(torch.zeros(()))  # it makes its scale at its first use
            scaler.update(scale)
            x = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(number))
            scaler.scale(net(x).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
        sums.append(pruner.method.memory["sums"])
    assert all(torch.allclose(sums[0][n], sums[1][n], rtol=1e-4, atol=1e-12) for n in ("2", "3"))
