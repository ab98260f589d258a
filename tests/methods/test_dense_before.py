"""Before its schedule starts a method leaves the training alone; those that do not are known to sweeps, which share that time."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from campfire import Era, OneShot, Pruner, Steps
from campfire.methods import REGISTRY
from campfire.sweep.sharing import EARLY

EPOCHS, STEPS = 4, 3  # a training, and its steps an epoch
SCHEDULES = {
    **dict.fromkeys(("iterative", "lottery"), Steps(((1, 0.25), (2, 0.5)))),
    **dict.fromkeys(("l1-filter", "snip", "grasp", "synflow", "random", "magnitude"), OneShot(1, 0.5)),
    **dict.fromkeys(("set", "rigl", "dsr", "deepr"), Era(1, 2, 0.5, initial=0.5, by="step")),
}


def first_epoch(method: str | None) -> tuple[list[torch.Tensor], bool]:
    """The weights after it, and whether the learning rate was that of a dense training."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    model, x, y = nn.Sequential(*layers), torch.randn(8, 3, 8, 8), torch.arange(8) % 4
    optimizer, usual = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), True
    pruner = None
    if method is not None:
        structure = "filter" if method in ("prunetrain", "l1-filter") else "fine"
        schedule = SCHEDULES.get(method, Era(1, 2, 0.5, by="step"))
        pruner = Pruner(model, {"2": structure}, copy.deepcopy(schedule), method=method).attach(optimizer, STEPS)
    for step in range(STEPS):
        loss = F.cross_entropy(model(x), y)
        if pruner is not None:
            usual &= pruner.lr_time(EPOCHS) == (step / STEPS, EPOCHS)
            pruner.batch(loss, x)
            loss = loss + pruner.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()], usual


@pytest.mark.parametrize("method", sorted(REGISTRY))
def test_dense_before_its_schedule(method: str) -> None:
    (ours, usual), (dense, _) = first_epoch(method), first_epoch(None)
    alone = usual and all(map(torch.equal, ours, dense))
    assert alone == (method not in EARLY)
