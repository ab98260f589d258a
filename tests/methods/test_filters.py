"""Methods that remove filters: PruneTrain's lasso and Li et al.'s L1 norms."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, Steps
from campfire.errors import DoesNotFit, UsageError
from campfire.methods import named

ERA = Era(0, 4, 0.5, by="step")


def bound(method: str, schedule=ERA, structure: str = "filter", lr: float = 0.05):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 10, 3), nn.Flatten())
    optimizer = SGD(net.parameters(), lr=lr)
    return net, optimizer, Pruner(net, {"2": structure}, schedule, method=method).attach(optimizer, 3)


def step(net, optimizer, pruner, number: int = 0, show: bool = True) -> float:
    optimizer.zero_grad()
    loss = net(torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(number))).square().mean()
    if show:
        pruner.batch(loss)
    (loss + pruner.penalty()).backward()
    optimizer.step()
    return float(loss.detach())


def lasso(weight: torch.Tensor) -> float:
    outputs = sum(float(weight[k].norm()) for k in range(weight.shape[0]))
    return outputs + sum(float(weight[:, c].norm()) for c in range(weight.shape[1]))


def test_the_lasso_weighs_a_fifth_of_the_first_loss() -> None:
    net, optimizer, pruner = bound("prunetrain", lr=0.0)
    loss = step(net, optimizer, pruner)
    assert float(pruner.penalty()) == pytest.approx(0.25 * loss, rel=1e-5)  # rho / (1 - rho)
    with torch.no_grad():
        net[2].weight *= 2
    step(net, optimizer, pruner, 1)
    assert float(pruner.penalty()) == pytest.approx(0.5 * loss, rel=1e-5)  # lam stays
    assert float(pruner.penalty()) == pytest.approx(
        pruner.method.memory["lam"] * lasso(net[2].weight.detach()), rel=1e-5
    )


def test_dead_filters_have_a_gradient_of_zero() -> None:
    net, optimizer, pruner = bound("prunetrain:rounds=1,lam=0.1", Era(0, 1, 0.5, by="step"))
    for number in range(7):
        step(net, optimizer, pruner, number)
        assert bool(net[2].weight.isfinite().all())
    assert pruner.sparsity == 0.5
    assert pruner.penalty() == 0.0  # the era is over


def test_what_is_near_zero_goes_now_and_then() -> None:
    net, optimizer, pruner = bound("prunetrain:rounds=4,lam=1e-9,threshold=1e-3,exact=false", lr=1e-6)
    with torch.no_grad():
        net[2].weight[[1, 5, 7]] = 1e-4
    history = []
    for number in range(15):
        step(net, optimizer, pruner, number)
        history.append(round(pruner.sparsity, 3))
    assert history == [0.0] * 3 + [0.3] * 12
    assert pruner.frozen
    assert not net[2].weight[[1, 5, 7]].any()


def test_at_the_end_the_target_is_met() -> None:
    net, optimizer, pruner = bound("prunetrain:lam=1e-9")
    for number in range(15):
        step(net, optimizer, pruner, number)
    assert pruner.sparsity == 0.5


def test_the_target_caps_what_goes() -> None:
    net, optimizer, pruner = bound("prunetrain:rounds=4,lam=1e-9,threshold=9")
    for number in range(4):
        step(net, optimizer, pruner, number)
    assert pruner.sparsity == 0.5


def test_a_loss_that_was_never_shown() -> None:
    with pytest.raises(UsageError, match=r"has seen none: call pruner.batch\(loss\) before pruner.penalty"):
        step(*bound("prunetrain"), show=False)


def test_l1_norms_decide_and_not_the_score() -> None:
    net, optimizer, pruner = bound("l1-filter", OneShot(1, 0.3), lr=0.0)
    norms = net[2].weight.detach().abs().sum((1, 2, 3))
    for number in range(4):
        step(net, optimizer, pruner, number)
    assert sorted((~pruner.masks["2"].keep.any(3).any(2).any(1)).nonzero().flatten().tolist()) == sorted(
        norms.argsort()[:3].tolist()
    )


def test_l1_by_a_list() -> None:
    net, optimizer, pruner = bound("l1-filter", Steps(((1, 0.2), (2, 0.4))))
    history = []
    for number in range(8):
        step(net, optimizer, pruner, number)
        history.append(round(pruner.sparsity, 3))
    assert history == [0.0] * 3 + [0.2] * 3 + [0.4] * 2


@pytest.mark.parametrize("method", ["prunetrain", "l1-filter"])
def test_other_structures_are_refused(method: str) -> None:
    with pytest.raises(
        DoesNotFit, match="removes whole filters, and layer '2' has structure 'ck'; use structure 'filter'"
    ):
        bound(method, Steps(((1, 0.2), (2, 0.4))), "ck")


def test_no_time_for_it() -> None:
    with pytest.raises(DoesNotFit, match="no time for it"):
        bound("prunetrain", OneShot(1, 0.5))


@pytest.mark.parametrize(
    "spec", ["prunetrain:rho=1", "prunetrain:threshold=-1", "prunetrain:rounds=0", "zhu-gupta:updates=0"]
)
def test_options_out_of_range(spec: str) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        named(spec)


def test_a_state_of_before_the_first_loss_forgets_its_weight() -> None:
    net, optimizer, pruner = bound("prunetrain")
    early = pruner.state_dict()
    step(net, optimizer, pruner)
    pruner.load_state_dict(early)
    with torch.no_grad():
        net[2].weight *= 2
    loss = step(net, optimizer, pruner, 1)
    assert pruner.method.memory["lam"] * lasso(net[2].weight.detach()) == pytest.approx(0.25 * loss, rel=0.05)
