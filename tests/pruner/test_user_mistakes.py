"""Slips of a user's hand are told: a pruner that nobody attached, or two; an era that outlives training; rules of other kinds."""

import copy
import re

import pytest
from pruner_nets import ERA, ONCE, net, train
from torch import nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, compress_
from campfire.errors import DoesNotFit, NoEffect, UsageError


def test_an_era_that_outlives_training() -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", Era(1, 3, 0.7))
    told = "no step was seen: attach(optimizer, steps_per_epoch) comes before training"
    assert str(pruner.report()).endswith(told)
    with pytest.raises(UsageError, match=re.escape(f"masks still change: {told}; compress after it")):
        compress_(model, pruner)
    pruner.attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(4))
    told = "at epoch 4, masks change until epoch 4 is over, where 0.700 is asked"
    assert str(pruner.report()).endswith(told)
    with pytest.raises(UsageError, match=re.escape(told)):
        compress_(model, pruner, optimizer)
    train(model, [optimizer], range(4, 6))
    assert str(pruner.report()).endswith("weights kept")
    assert compress_(model, pruner, optimizer).compressed


def test_a_second_pruner_takes_the_place_of_the_first() -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    first = Pruner(model, "ck", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(2))
    with pytest.warns(NoEffect, match="another pruner was attached to these layers; it is detached now"):
        second = Pruner(model, "fine", OneShot(0, 0.3)).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(2, 5))
    zeros = int((model.body.weight == 0).sum())
    assert zeros == int((~second.masks["body"].keep).sum()) < int((~first.masks["body"].keep).sum())
    first.detach()
    second.detach()
    Pruner(model, "ck", ONCE).attach(optimizer, steps_per_epoch=1)


def test_state_of_a_compressed_model_comes_after_it() -> None:
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(model, "ck", ONCE).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(2))
    compress_(model, pruner, optimizer)
    train(model, [optimizer], range(2, 3))
    saved = copy.deepcopy((model.state_dict(), pruner.state_dict(), optimizer.state_dict()))
    for early in (True, False):
        again = net()
        other = SGD(again.parameters(), lr=0.1, momentum=0.9)
        same = Pruner(again, "ck", ONCE).attach(other, steps_per_epoch=1)
        again.load_state_dict(saved[0])
        same.load_state_dict(saved[1])
        if early:
            other.load_state_dict(saved[2])
            with pytest.raises(DoesNotFit, match="the state of a compressed model is loaded after compress_"):
                compress_(again, same, other)
            continue
        compress_(again, same, other)
        other.load_state_dict(saved[2])
        train(again, [other], range(3, 4))
    train(model, [optimizer], range(3, 4))
    assert all((a == b).all() for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_rule_sets_are_rules_too() -> None:
    structures = {n: str(layer.structure) for n, layer in Pruner(net(), {"body": "cpu", "*": None}, ERA).layers.items()}
    assert structures == {"body": "ck"}


BAD = {
    "a module": ({net().body: "ck"}, "a rule names layers by their names, not by themselves; got Conv2d"),
    "a list": (["body"], "rules for some layers are a mapping, such as {'layer1.*': 'ck'}; got ['body']"),
    "dense": ("dense", "'dense' prunes nothing; train without a pruner"),
    "two eras": (
        {"body": "inter-epoch"},
        "inter-epoch is two eras of their own: Pruner(model, inter_epoch(start, length",
    ),
    "nearly a rule set": ("cpuu", "no structure is called 'cpuu'; did you mean 'cpu'?"),
    "nearly dense": ({"body": "densee"}, "no structure is called 'densee'; did you mean 'dense'?"),
}


@pytest.mark.parametrize(("rules", "message"), BAD.values(), ids=BAD)
def test_rules_that_are_none(rules: object, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        Pruner(net(), rules, ERA)  # pyright: ignore[reportArgumentType]


def test_a_pruner_is_for_a_model() -> None:
    with pytest.raises(UsageError, match=r"a pruner is made for a model, a torch\.nn\.Module; got generator"):
        Pruner(nn.Linear(2, 2).parameters(), "ck", ERA)  # pyright: ignore[reportArgumentType]
