"""Interrupted anywhere and resumed, a run equals the uninterrupted one bit for bit."""

import copy
import io
from typing import Any

import pytest
import torch
from pruner_nets import net, train
from torch.optim import SGD, AdamW, Optimizer

from campfire import Era, Pruner, Steps, inter_epoch

PACE, EPOCHS = 3, 9
OPTIMIZERS = {
    "sgd": lambda p: SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
    "adamw": lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
}
ERA = Era(1, 5, 0.7)
STEPS = Steps(((1, 0.3), (3, 0.5), (5, 0.7)))
RUNS: dict[str, dict[str, Any]] = {
    "ck": {"rules": "ck", "schedule": ERA},
    "window": {"rules": "window:mode=campfire", "schedule": ERA},
    "combined": {"rules": "combined", "schedule": ERA},
    "inter-epoch": {"rules": inter_epoch(1, 6, 0.7)},
    "fully connected": {"rules": {"head": "block:n=2", "point": "two-tier", "body": "fine"}, "schedule": ERA},
    "taylor": {"rules": "ck", "schedule": ERA, "score": "taylor"},
    "random": {"rules": "combined", "schedule": ERA, "score": "random", "seed": 7},
    "erk": {"rules": "ck", "schedule": ERA, "allocation": "erk"},
    "global": {"rules": "fine", "schedule": ERA, "allocation": "global"},
    "by step": {"rules": "combined", "schedule": Era(1 / 3, 4.7, 0.7, by="step"), "every": 2},
    "threshold": {"rules": "kernel", "schedule": STEPS, "method": "iterative:threshold=0.6"},
    "list": {"rules": "fine", "schedule": STEPS, "method": "iterative"},
}


def start(run: str, optimizer: str, attach: bool = True) -> tuple[torch.nn.Module, Optimizer, Pruner]:
    model = net()
    bound = OPTIMIZERS[optimizer](model.parameters())
    pruner = Pruner(model, **RUNS[run])
    return model, bound, pruner.attach(bound, PACE) if attach else pruner


def parts(model: torch.nn.Module, optimizer: Optimizer, pruner: Pruner) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruner": pruner.state_dict()}


def difference(one: Any, other: Any, where: str = "") -> list[str]:
    if isinstance(one, dict):
        missing = [f"{where}: keys differ"] if list(one) != list(other) else []
        return missing + [d for k in one if k in other for d in difference(one[k], other[k], f"{where}/{k}")]
    if isinstance(one, (list, tuple)):
        return [d for i, (a, b) in enumerate(zip(one, other, strict=True)) for d in difference(a, b, f"{where}/{i}")]
    if torch.is_tensor(one):
        return [] if torch.equal(one, other) else [where]
    return [] if one == other else [f"{where}: {one} and {other}"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("run", RUNS)
def test_every_interruption(run, optimizer):
    whole = start(run, optimizer)
    saved = []
    for step in range(PACE * EPOCHS):
        if step in (0, 4, 7, 11, 15, 19, 23):
            saved.append((step, copy.deepcopy(parts(*whole))))
        train(whole[0], [whole[1]], [step])
    assert whole[2].frozen
    wanted = parts(*whole)
    for number, (step, state) in enumerate(saved):
        attach_first = number % 2 == 0
        file = io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        state = torch.load(file, weights_only=True)
        model, bound, pruner = start(run, optimizer, attach_first)
        model.load_state_dict(state["model"])
        bound.load_state_dict(state["optimizer"])
        pruner.load_state_dict(state["pruner"])
        if not attach_first:
            pruner.attach(bound, PACE)
        train(model, [bound], range(step, PACE * EPOCHS))
        assert not difference(wanted, parts(model, bound, pruner)), f"interrupted before step {step}"


def test_with_epochs_set_by_the_loop():
    """The clock's origin is part of the state: the same sums give the same last bit."""
    clocks = []
    for interrupted in (False, True):
        model, optimizer, pruner = start("by step", "sgd")
        for step in range(20):
            if interrupted and step == 8:
                state = copy.deepcopy(parts(model, optimizer, pruner))
                model, optimizer, pruner = start("by step", "sgd")
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                pruner.load_state_dict(state["pruner"])
            if step % PACE == 0:
                pruner.set_epoch(step / PACE * 1.1)
            train(model, [optimizer], [step])
        clocks.append(copy.deepcopy(parts(model, optimizer, pruner)))
    assert not difference(*clocks)
