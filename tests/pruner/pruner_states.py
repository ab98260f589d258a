"""Pruners in the middle of an era, and their states."""

import io
from typing import Any

import torch
from pruner_nets import net, train
from torch import nn
from torch.optim import SGD

from campfire import Era, Pruner

ERA = Era(0, 4, 0.7)
RULES = {"body": "combined", "point": "ck", "head": "fine-fc"}


def fresh(rules: object = RULES, schedule: object = ERA, model: nn.Module | None = None, **kwargs: Any) -> Pruner:
    return Pruner(net() if model is None else model, rules, schedule, **kwargs)


def trained(steps: int = 5, **kwargs: Any) -> Pruner:
    pruner = fresh(**kwargs)
    optimizer = SGD(pruner.model.parameters(), lr=0.05, momentum=0.9)
    pruner.attach(optimizer, steps_per_epoch=2)
    train(pruner.model, [optimizer], range(steps))
    return pruner


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if torch.is_tensor(one):
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(one) is type(other) and one == other
