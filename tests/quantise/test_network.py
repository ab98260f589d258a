"""Whole networks in few values: what changes, what stays, and shared values that train."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel

from campfire.errors import CampfireError, DoesNotFit, UnknownName
from campfire.quantise import named
from campfire.quantise.network import QuantisedLayer, bake_, quantise_, share_


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


def parametrised() -> nn.Sequential:
    model = net()
    parametrizations.weight_norm(model[4])
    return model


def pruned_by_torch() -> nn.Sequential:
    model = net()
    prune.l1_unstructured(model[4], "weight", 0.5)
    return model


def shared() -> nn.Sequential:
    model = net()
    share_(model, 2)
    return model


@pytest.mark.parametrize("build", [parametrised, pruned_by_torch, shared])
def test_a_computed_weight_is_refused_with_a_cure(build) -> None:
    model = build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for change in (lambda: quantise_(model, named("codebook:2")), lambda: share_(model, 2)):
        with pytest.raises(DoesNotFit, match=r"(?s)computed.*bake_.*remove_parametrizations.*prune\.remove"):
            change()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    bake_(model)  # the cure of what is shared; another is left alone
    assert (len(quantise_(model, named("int8"))) == 2) if build is shared else ("weight" not in model[4]._parameters)


def wrapped_part() -> nn.Module:
    model = net()
    model[0] = torch.compile(model[0], backend="eager")
    return model


@pytest.mark.parametrize(
    "build", [wrapped_part, lambda: torch.compile(net(), backend="eager"), lambda: AveragedModel(net())]
)
def test_layers_of_wrapped_models_have_the_names_that_pruners_give_them(build) -> None:
    plain, model = net(), build()
    rows = quantise_(plain, named("codebook:4"), masks())
    assert quantise_(model, named("codebook:4"), masks()) == rows
    tensors = zip(model.parameters(), plain.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in tensors)
    raw = next(name for name, module in model.named_modules() if type(module) is nn.Conv2d)
    assert quantise_(model, named("codebook:4"), {raw: masks()["0"]}) == quantise_(plain, named("codebook:4"), masks())
    share_(model, 3, masks())
    assert sum(p.numel() for p in model.parameters() if p.dim() == 1) == 8 + 8 + 8 + 8 + 8


def test_what_is_not_quantised_is_named() -> None:
    convolutions = (nn.Conv1d(2, 3, 2), nn.Conv3d(2, 3, 2), nn.ConvTranspose2d(2, 3, 2))
    model = nn.Sequential(*convolutions, nn.Embedding(5, 4), nn.BatchNorm2d(3), nn.Linear(4, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rows = quantise_(model, named("codebook:2"))
    assert [row.name for row in rows] == ["5", "0", "1", "2", "3"]
    assert rows[0].reason is None
    reason = "Conv1d is not quantised, only nn.Conv2d and nn.Linear are"
    assert rows[1] == QuantisedLayer("0", 12, 12, 48, 0.0, reason)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"5.weight"}


class TestTied:
    def model(self) -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
        model[2].weight = model[0].weight
        return model

    def test_sharing_is_refused_by_name(self) -> None:
        model = self.model()
        with pytest.raises(DoesNotFit, match=r"(?s)layers '0' and '2'.*one weight"):
            share_(model, 2)
        assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
        embedding = nn.ModuleDict({"words": nn.Embedding(8, 8), "head": nn.Linear(8, 8)})
        embedding["head"].weight = embedding["words"].weight
        with pytest.raises(DoesNotFit, match="'words' and 'head'"):
            share_(embedding, 2)

    def test_one_weight_is_quantised_once_and_its_dead_weights_stay_dead(self) -> None:
        model, keep = self.model(), torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.4
        with torch.no_grad():
            model[0].weight.mul_(keep).add_(keep * 3.0)  # far from zero: a code for 0 would move it
        (row,) = quantise_(model, named("codebook:2"), {"0": keep})
        assert (row.name, row.living) == ("0", int(keep.sum()))
        assert torch.equal(model[2].weight != 0, keep)


class TestStateDict:
    def trained(self) -> nn.Sequential:
        """Shared, and its values moved, so that no other start would find the same."""
        model = net()
        share_(model, 3, masks())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("original"):
                    parameter.add_(torch.linspace(-1, 1, len(parameter)))
        return model.eval()

    def test_it_tells_the_weights_to_another_shared_module(self) -> None:
        model, x = self.trained(), torch.randn(2, 3, 8, 8)
        other = net()
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.normal_()
        share_(other, 3, {"0": masks()["0"].flip(0)})  # as many live, elsewhere
        assert not torch.equal(other.eval()(x), model(x))
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(x), model(x))
        for shared in (model, other):
            bake_(shared)
        assert torch.equal(other[0].weight, model[0].weight)

    def test_others_refuse_it_and_it_refuses_others(self) -> None:
        with pytest.raises(RuntimeError, match="Missing key"):
            net().load_state_dict(self.trained().state_dict())
        with pytest.raises(RuntimeError, match="Missing key"):
            self.trained().load_state_dict(net().state_dict())
        more = net()
        share_(more, 3)
        with pytest.raises(RuntimeError, match="size mismatch"):
            more.load_state_dict(self.trained().state_dict())
