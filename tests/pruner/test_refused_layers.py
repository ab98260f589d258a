"""Layers that cannot be pruned: listed, and refused with the reason."""

import pytest
import torch
from pruner_nets import ONCE, PRUNED, net, reasons, structures, train
from torch import nn
from torch.nn.utils import parametrizations, prune

from campfire import Pruner
from campfire.errors import UsageError
from campfire.pruner import resolve, targets


def computed(how: str) -> nn.Sequential:
    model = net()
    if how == "parametrized":
        parametrizations.weight_norm(model.body)
    elif how == "spectral":
        nn.utils.spectral_norm(model.body)
    else:
        prune.random_unstructured(model.body, "weight", 0.5)
    return model


@pytest.mark.parametrize("how", ["parametrized", "spectral", "torch-prune"])
def test_computed_weights_are_refused_with_the_reason(how):
    assert "its weight is computed" in reasons(computed(how), "ck")["body"]
    for rules in ({"body": "ck"}, {"bo*": "ck"}):
        with pytest.raises(UsageError, match="only layers that cannot be pruned:\n  - body: its weight is computed"):
            Pruner(computed(how), rules, ONCE)


def test_lazy_layers_are_refused_until_they_have_a_shape():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.LazyConv2d(8, 3), nn.Conv2d(8, 8, 1), nn.LazyLinear(4))
    report = Pruner(model, {nn.Conv2d: "ck"}, ONCE).report()
    assert [row.structure for row in report.layers] == [None, None, "ck", None]
    assert "run one batch through the model" in report.layers[0].reason
    assert report.model.weights == 8 * 8 + 8
    assert "run one batch" in str(report)
    with pytest.raises(UsageError, match="1: its weight had no shape yet"):
        Pruner(model[:2], "ck", ONCE)
    model[:3](torch.zeros(1, 3, 8, 8))
    assert structures(model[:3], "ck") == {"1": "ck", "2": "ck"}


def test_layers_without_numbers_are_left_alone():
    model = nn.Sequential(nn.Linear(0, 4), nn.Linear(4, 8), nn.Linear(8, 8))
    pruner = Pruner(model, {"*": "fine"}, ONCE, allocation="erk")
    assert pruner.report().layers[0].reason == "its weight [4, 0] holds no numbers"
    assert list(pruner.layers) == ["1", "2"]
    with pytest.raises(UsageError, match=r"its weight \[0, 8\] holds no numbers"):
        Pruner(nn.Sequential(nn.Linear(8, 0)), "fine-fc", ONCE)


def test_tied_weights_are_pruned_once():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    model[2].weight = model[1].weight
    pruner = Pruner(model, "ck", ONCE)
    assert list(pruner.layers) == ["1"]
    report = pruner.report()
    assert report.layers[2].reason == "it shares its weight with 1"
    assert report.model.weights == sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner.attach(optimizer, steps_per_epoch=1)
    for _ in range(2):
        model(torch.randn(2, 4, 5, 5)).square().mean().backward()
        optimizer.step()
    assert not model[2].weight[~pruner.masks["1"].keep].any()


def test_a_module_that_is_used_twice_is_one_layer():
    shared = nn.Conv2d(4, 4, 3)
    assert structures(nn.Sequential(nn.Conv2d(4, 4, 3), shared, shared), "ck") == {"1": "ck"}


@pytest.mark.parametrize("layer", [nn.Conv1d(4, 4, 3), nn.Conv3d(4, 4, 3), nn.ConvTranspose2d(4, 4, 3)])
def test_other_convolutions_are_listed(layer):
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3), layer)
    report = Pruner(model, "ck", ONCE).report()
    assert report.layers[2].reason == f"it is a {type(layer).__name__}: structures are for Conv2d and Linear"
    assert report.layers[2].weights == layer.weight.numel()
    assert report.model.weights == sum(p.numel() for p in model.parameters())


def test_wrappers_do_not_change_names():
    found, refused = targets(torch.compile(net(), backend="eager"))
    assert [t.name for t in found] == ["stem", "body", "point", "head"]
    assert not refused
    averaged, _ = targets(torch.optim.swa_utils.AveragedModel(net()))
    assert [t.name for t in averaged] == [t.name for t in found]
    chosen, dense = resolve(found, "ck")
    assert {n: found[i].shape for i, n in ((1, "body"), (2, "point"))} == PRUNED
    assert set(chosen) | set(dense) == {t.name for t in found}


def test_rules_are_read_once_and_the_model_may_train_on():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, {"body": "ck"}, ONCE).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(2))
    assert set(pruner.masks) == {"body"}
