"""Which layer gets which structure, and what a wrong rule is told."""

import warnings

import pytest
import torch
from pruner_nets import ONCE, net, reasons, structures
from torch import nn
from torch.nn.utils import parametrizations

from campfire import Pruner
from campfire.errors import DoesNotFit, NoEffect, UnknownName, UsageError
from campfire.structures import named
from campfire.structures.granularity import CK


def with_groups() -> nn.Sequential:
    model = net()
    model.grouped = nn.Conv2d(16, 16, 3, groups=4)
    model.depthwise = nn.Conv2d(16, 16, 3, groups=16)
    return model


def test_default_scope_is_convolutions_without_groups_except_the_first():
    assert structures(with_groups(), "ck") == {"body": "ck", "point": "ck"}
    assert reasons(with_groups(), CK()) == {
        "stem": "the first convolution",
        "head": "a linear layer; the default scope is convolutions",
        "grouped": "it has 4 groups; the default scope is convolutions with groups = 1",
        "depthwise": "it has 16 groups; the default scope is convolutions with groups = 1",
    }


def test_a_rule_set_gives_each_kind_of_layer_its_structure():
    model = with_groups()
    model.wide = nn.Conv2d(64, 32, 1)
    assert structures(model, "cpu") == {"body": "ck", "point": "ck", "wide": "tiles"}  # tiles do not fit 16 outputs
    assert reasons(model, "cpu") == reasons(model, "ck")


@pytest.mark.parametrize("spec", ["fine-fc", "block:n=2", "two-tier"])
def test_default_scope_of_structures_for_linear_layers(spec):
    assert structures(net(), spec) == {"head": str(named(spec))}
    assert reasons(net(), spec)["body"] == "a convolution; this structure's default scope is linear layers"


def test_the_first_convolution_is_the_first_even_where_it_cannot_be_pruned():
    model = net()
    parametrizations.weight_norm(model.stem)
    assert structures(model, "ck") == {"body": "ck", "point": "ck"}


@pytest.mark.parametrize(
    "selector",
    ["body", "bod?", "[b]ody", "re:^body$", "re:od", lambda name, module: module.out_channels == 16 and name[0] == "b"],
)
def test_ways_to_name_a_layer(selector):
    model = net()
    del model.head
    assert structures(model, {selector: "ck"}) == {"body": "ck"}


def test_types_and_structures_as_objects():
    assert structures(net(), {nn.Linear: "fine-fc", nn.Conv2d: CK()}) == {
        "stem": "ck",
        "body": "ck",
        "point": "ck",
        "head": "fine-fc",
    }


def test_first_match_wins_and_none_means_dense():
    rules = {"stem": None, "p*": "fine", nn.Conv2d: "ck", "head": "dense"}
    assert structures(net(), rules) == {"body": "ck", "point": "fine"}
    assert reasons(net(), rules) == {"stem": "a rule leaves it dense", "head": "a rule leaves it dense"}


def test_layers_that_no_rule_matches():
    assert reasons(net(), {"body": "ck"}) == dict.fromkeys(("stem", "point", "head"), "no rule matches it")


def test_a_rule_behind_others_has_no_effect():
    with pytest.warns(NoEffect, match="rule 'body' has no effect: earlier rules take all"):
        assert structures(net(), {nn.Conv2d: "ck", "body": "fine"})["body"] == "ck"


def test_a_rule_that_is_half_covered_has_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert structures(net(), {"body": None, nn.Conv2d: "ck"}) == {"stem": "ck", "point": "ck"}


def test_a_rule_whose_structure_fits_none_of_its_layers():
    with pytest.warns(NoEffect, match="rule 'bod\\*' has no effect: 'nm:n=2,m=5' fits none"):
        Pruner(net(), {"point": "ck", "bod*": "2:5"}, ONCE)


def test_grouped_by_rule_and_depthwise_refused():
    assert structures(with_groups(), {"*": "ck"})["grouped"] == "ck"
    assert "depthwise" not in structures(with_groups(), {"*": "ck"})
    assert "depthwise (16 groups of one input channel)" in reasons(with_groups(), {"*": "ck"})["depthwise"]
    with pytest.raises(DoesNotFit, match=r"layer 'depthwise' of shape \(16, 1, 3, 3\):\n  - it is depthwise"):
        Pruner(with_groups(), {"depthwise": "ck"}, ONCE)


def test_grouped_convolutions_train():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, groups=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, {"0": "ck"}, ONCE).attach(optimizer, steps_per_epoch=1)
    model(torch.randn(2, 8, 5, 5)).square().sum().backward()
    optimizer.step()
    assert pruner.masks["0"].keep.shape == (16, 2, 3, 3)
    assert pruner.report().layers[0].kept_kernels == 16


def test_a_misfit_named_in_full_is_an_error_and_by_pattern_a_reason():
    model = net()
    with pytest.raises(DoesNotFit, match="layer 'stem' of shape") as raised:
        Pruner(model, {"stem": "2:4"}, ONCE)
    assert raised.value.exit_code == 2
    assert structures(model, {nn.Conv2d: "2:4"}) == {"body": "nm:n=2", "point": "nm:n=2"}
    assert "3 input channels are not a multiple of m=4" in reasons(model, {nn.Conv2d: "2:4"})["stem"]


@pytest.mark.parametrize("selector", ["layer1.*", "re:^x", nn.ConvTranspose2d, lambda name, module: False])
def test_a_rule_that_matches_nothing_names_the_layers(selector):
    with pytest.raises(
        UsageError, match="matches no convolution or linear layer; the layers are stem, body, point, head"
    ):
        Pruner(net(), {"body": "ck", selector: "ck"}, ONCE)


def test_a_long_list_of_layers_is_cut():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(20)))
    with pytest.raises(UsageError, match=r"0, 1, 2, 3, 4, 5, 6, 7, \.\.\.$"):
        Pruner(model, {"x": "ck"}, ONCE)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "nothing would be pruned: no layer fits\n  - stem: no rule matches it"),
        ({"*": None}, "nothing would be pruned"),
        ({"re:(": "ck"}, "is not a regular expression"),
        ({3: "ck"}, "a rule names layers by a glob"),
        ({"body": 0.7}, "a rule gives a structure, its name, or None; got 0.7"),
        ({"body": CK}, "a rule gives a structure"),
        (CK, "rules are a structure, a mapping"),
        (None, "rules are a structure, a mapping"),
        ([], "one Phase or more"),
        (["ck"], "rules for some layers are a mapping"),
    ],
)
def test_wrong_rules(rules, message):
    schedule = None if isinstance(rules, list) else ONCE
    with pytest.raises(UsageError, match=message) as raised:
        Pruner(net(), rules, schedule)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("kwargs", "hint"),
    [
        ({"rules": "windwo"}, "window"),
        ({"rules": {"body": "windwo"}}, "window"),
        ({"method": "gradul"}, "gradual"),
        ({"score": "magnitud"}, "magnitude"),
        ({"allocation": "unifrom"}, "uniform"),
    ],
)
def test_unknown_names_suggest(kwargs, hint):
    with pytest.raises(UnknownName, match=f"did you mean '{hint}'"):
        Pruner(net(), kwargs.pop("rules", "ck"), ONCE, **kwargs)


def test_models_without_anything_to_prune():
    with pytest.raises(UsageError, match="no convolution or linear layer"):
        Pruner(nn.Sequential(nn.ReLU()), "ck", ONCE)
    with pytest.raises(UsageError, match="0: the first convolution"):
        Pruner(nn.Sequential(nn.Conv2d(3, 8, 3)), "ck", ONCE)


def test_a_model_that_is_one_layer():
    assert structures(nn.Conv2d(3, 8, 3), {nn.Conv2d: "ck"}) == {"": "ck"}
