"""Whole networks in few values: what changes, what stays, and shared values that train."""

import pytest
import torch
from torch import Tensor, nn

from campfire.errors import CampfireError, DoesNotFit, UnknownName
from campfire.quantise import named
from campfire.quantise.network import bake_, quantise_, share_


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4, bias=False)
    )


def masks() -> dict[str, Tensor]:
    return {"0": torch.rand(8, 3, 3, 3, generator=torch.Generator().manual_seed(1)) < 0.5}


def test_weights_change_and_nothing_else() -> None:
    model, before = net(), net().state_dict()
    rows = quantise_(model, named("codebook:4"), masks())
    changed = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert changed == {"0.weight", "4.weight"}
    assert [r.name for r in rows] == ["0", "4"]
    assert rows[0].living == int(masks()["0"].sum()) == int(model[0].weight.count_nonzero())
    assert all(0 < r.error < 1 for r in rows)


def test_shared_values_learn_under_the_mask() -> None:
    model, keep = net(), masks()
    share_(model, 3, keep)
    assert model[0].weight.unique().numel() <= 9
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(16, 3, 8, 8), torch.arange(16) % 4
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    bake_(model)
    assert isinstance(model[0].weight, nn.Parameter)
    assert set(model.state_dict()) == set(net().state_dict())
    assert (model[0].weight[~keep["0"]] == 0).all()
    assert model[0].weight[keep["0"]].unique().numel() <= 8


def test_the_gradient_of_a_shared_value_is_the_sum_over_its_weights() -> None:
    plain, shared = net(), net()
    quantise_(plain, named("codebook:2"))
    share_(shared, 2)
    x = torch.randn(4, 3, 8, 8)
    for model in (plain, shared):
        model(x).square().sum().backward()
    table = shared[4].parametrizations["weight"].original  # pyright: ignore
    for value, gradient in zip(table.detach(), table.grad, strict=True):
        expected = plain[4].weight.grad[plain[4].weight.detach() == value].sum()
        torch.testing.assert_close(gradient, expected)


def test_what_is_refused() -> None:
    with pytest.raises(UnknownName, match="'1'"):
        quantise_(net(), named("int8"), {"1": torch.ones(8)})
    with pytest.raises(DoesNotFit, match=r"its weight is \[8, 3, 3, 3\]"):
        quantise_(net(), named("int8"), {"0": torch.ones(8, dtype=torch.bool)})
    with pytest.raises(CampfireError, match="no convolution or linear layer"):
        quantise_(nn.ReLU(), named("int8"))
