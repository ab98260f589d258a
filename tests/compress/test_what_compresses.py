"""Which layers are compressed, in which layout, why the others stay dense, and what is refused outright."""

import copy

import pytest
import torch
from compress_cases import assert_close_models, frozen, frozen_model, loss_of, net, same_models, train
from torch import nn
from torch.nn.parallel import DataParallel
from torch.optim import LBFGS, SGD, Adafactor
from torch.optim.swa_utils import AveragedModel

from campfire import Era, OneShot, Pruner, compress_, decompress_
from campfire.compress.compressing import best_layout
from campfire.errors import DoesNotFit, UnknownName, UsageError
from campfire.mask import Mask

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")  # small layers lose some


def sgd(model: nn.Module) -> SGD:
    return SGD(model.parameters(), lr=0.05, momentum=0.9)


def test_layouts_follow_the_masks() -> None:
    keep = torch.rand(32, 4, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    tall = (
        (torch.arange(2)[:, None] == torch.arange(4) % 2).repeat_interleave(16, 0)[:, :, None, None].expand(32, 4, 3, 3)
    )
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    mixed = torch.empty_like(tall).index_copy_(0, order, tall)
    assert best_layout(Mask(keep)) == "csr"
    assert best_layout(Mask(tall)) == "unit"
    assert best_layout(Mask(tall[:8])) == "csr"  # too short for a vector
    assert best_layout(Mask(mixed)) == "csr"
    assert best_layout(Mask(mixed, {"order": order})) == "grouped"
    assert best_layout(Mask(keep, {"order": order})) == "csr"  # the order does not help


@pytest.mark.parametrize("layout", ["csr", "tap"])
def test_a_layout_by_name(layout: str) -> None:
    masked = frozen()[0]
    model, optimizer, pruner = frozen()
    report = compress_(model, pruner, optimizer, layout)
    assert {row.layout for row in report.layers} == {layout}
    assert same_models(model, masked)


def test_a_layout_that_cannot_hold_a_mask_leaves_the_layer_dense_and_masked() -> None:
    masked, its_optimizer, _ = frozen()
    model, optimizer, pruner = frozen()
    report = compress_(model, pruner, optimizer, "unit")
    assert "tile" in report.dense["point"]
    assert "point" in str(report)
    assert type(model.point) is nn.Conv2d
    assert report.compressed
    train(masked, its_optimizer, range(3, 9))
    train(model, optimizer, range(3, 9))
    assert not model.point.weight[~pruner.masks["point"].keep].any(), "dead weights revived"
    assert_close_models(model, masked)


def test_again_is_a_no_op_that_says_so() -> None:
    model, optimizer, pruner = frozen()
    assert compress_(model, pruner, optimizer).changed
    body, value = model.body, model.body.value
    again = compress_(model, pruner, optimizer)
    assert not again.changed
    assert "nothing to do: 4 layers are compressed already" in str(again)
    assert model.body is body
    assert model.body.value is value
    assert again.to_dict()["before"] == again.to_dict()["after"]
    decompress_(model, optimizer, pruner)
    assert decompress_(model, optimizer, pruner) == []
    assert compress_(model, pruner, optimizer).changed


class Odd(nn.Conv2d):
    """Computes something else than its base."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return -super().forward(input)


def shared_net() -> nn.Module:
    model = net()
    model.add_module("twin", nn.Linear(64, 10, dtype=torch.float64))
    model.twin.weight = model.head.weight
    return model


def odd_net() -> nn.Module:
    model = net()
    model.point = Odd(32, 16, 1, dtype=torch.float64)
    return model


def reflecting_net() -> nn.Module:
    model = net()
    model.tall = nn.Conv2d(16, 32, 3, padding=1, padding_mode="reflect", dtype=torch.float64)
    return model


def oblong_net() -> nn.Module:
    model = net()
    model.tall = nn.Conv2d(16, 32, (3, 1), padding=(1, 0), dtype=torch.float64)
    return model


@pytest.mark.parametrize(
    ("make", "layer", "reason"),
    [
        (shared_net, "head", "tied"),
        (odd_net, "point", "Odd"),
        (reflecting_net, "tall", "padding_mode"),
        (oblong_net, "tall", "padding is"),
    ],
)
def test_layers_that_stay_dense_say_why(make, layer: str, reason: str) -> None:
    model = make()
    if layer == "head":  # the twin is no part of the path; the pruner just must not be alone with the weight
        twin, model.twin = model.twin, nn.Identity()
        model.twin.weight = twin.weight
    model, optimizer, pruner = frozen_model(model, sgd(model), {layer: "fine", "body": "ck"})
    kind = type(model.get_submodule(layer))
    report = compress_(model, pruner, optimizer)
    assert report.compressed == ["body"]
    assert reason in report.dense[layer]
    assert type(model.get_submodule(layer)) is kind
    loss_of(model, 0).backward()
    optimizer.step()
    weight = model.get_submodule(layer).weight
    assert not weight.view(pruner.masks[layer].keep.shape)[~pruner.masks[layer].keep].any()


def test_a_layer_with_hooks_stays_dense_until_they_go() -> None:
    model, optimizer, pruner = frozen()
    handles = [model.body.register_forward_hook(lambda *_: None), model.point.weight.register_hook(lambda g: g)]
    report = compress_(model, pruner, optimizer)
    assert "_forward_hooks" in report.dense["body"]
    assert "weight._backward_hooks" in report.dense["point"]
    for handle in handles:
        handle.remove()
    again = compress_(model, pruner, optimizer)
    assert not again.dense
    model.body.register_forward_hook(lambda *_: None)
    with pytest.raises(DoesNotFit, match=r"body.*\n.*_forward_hooks"):
        decompress_(model, optimizer)
    assert type(model.tall).__name__ == "SparseConv2d"


def test_a_module_used_twice_is_replaced_twice() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), conv, nn.Sequential(nn.ReLU(), conv))
    optimizer = sgd(model)
    pruner = Pruner(model, "ck", OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    model(torch.randn(1, 3, 6, 6)).sum().backward()
    optimizer.step()
    compress_(model, pruner, optimizer)
    assert model[1] is model[2][1] is not conv
    decompress_(model, optimizer)
    assert model[1] is model[2][1]
    assert type(model[1]) is nn.Conv2d


def test_a_whole_model_that_is_one_layer_stays() -> None:
    model = nn.Linear(4, 4)
    optimizer = sgd(model)
    pruner = Pruner(model, {"": "fine"}, OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    report = compress_(model, pruner, optimizer)
    assert "whole model" in report.dense[""]
    assert not report.changed
    assert "nothing was compressed" in str(report)


def refused(model: nn.Module, pruner: Pruner, *optimizers: object, match: str) -> None:
    """Nothing has changed, and the pruner goes on."""
    before, binding = copy.deepcopy(pruner.model.state_dict()), pruner._binding
    modules = list(pruner.model.modules())
    with pytest.raises(UsageError, match=match):
        compress_(model, pruner, *optimizers)
    assert all(a is b for a, b in zip(modules, pruner.model.modules(), strict=True))
    assert all(torch.equal(v, before[k]) for k, v in pruner.model.state_dict().items())
    assert pruner._binding is binding


def test_masks_that_still_change() -> None:
    model = net()
    optimizer = sgd(model)
    pruner = Pruner(model, "ck", Era(0, 5, 0.7)).attach(optimizer, steps_per_epoch=1)
    train(model, optimizer, range(2))
    refused(model, pruner, optimizer, match="masks still change")


def test_wrapped_models() -> None:
    model, optimizer, pruner = frozen()
    for wrapped in (
        DataParallel(model),
        AveragedModel(model),
        torch.compile(model),
        nn.Sequential(DataParallel(model)),
    ):
        refused(wrapped, pruner, optimizer, match=r"wrapped by .*compress the model itself first, then wrap it")
        with pytest.raises(UsageError, match="decompress the model itself"):
            decompress_(wrapped)
    model.compile(backend="eager")
    refused(model, pruner, optimizer, match="torch.compile")


def test_the_wrong_partners() -> None:
    model, optimizer, pruner = frozen()
    refused(net(), pruner, optimizer, match="another model")
    refused(model, pruner, sgd(model), match="attached to an optimizer that was not given")
    refused(model, pruner, "sgd", match="torch optimizer")
    pruner.detach()
    refused(model, pruner, sgd(net()), match="holds none of the pruned weights")
    refused(model, pruner, LBFGS(model.parameters()), match="does not step each weight by itself")
    refused(model, pruner, Adafactor(model.parameters()), match="does not step each weight by itself")
    optimizer.state[model.body.weight]["rows"] = torch.zeros(16)
    refused(model, pruner, optimizer, match=r"its state 'rows' is of shape \(16,\)")


def test_names_are_checked_first() -> None:
    model, optimizer, pruner = frozen()
    with pytest.raises(UnknownName, match="grouped"):
        compress_(model, pruner, optimizer, layout="groupd")
    with pytest.raises(UnknownName, match="reference"):
        compress_(model, pruner, optimizer, kernel="referense")
    assert compress_(model, pruner, optimizer, kernel="reference").compressed
    assert all("kernel=reference" in repr(m) for m in (model.body, model.head))


def test_several_optimizers() -> None:
    model = net()
    one = SGD(model.body.parameters(), lr=0.1, momentum=0.9)
    two = SGD([*model.point.parameters(), *model.tall.parameters()], lr=0.1, momentum=0.9)
    pruner = Pruner(model, {"body": "ck", "point": "fine"}, OneShot(0, 0.5)).attach([one, two], steps_per_epoch=1)
    loss_of(model, 0).backward()
    one.step()
    two.step()
    refused(model, pruner, one, match="not given")
    compress_(model, pruner, [one, two])
    assert one.param_groups[0]["params"] == [model.body.value]
    assert two.param_groups[0]["params"][0] is model.point.value
    assert two.state[model.point.value]["momentum_buffer"].shape == model.point.value.shape
