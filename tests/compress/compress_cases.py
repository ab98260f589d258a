"""A network with frozen masks of several structures, and its training."""

from collections import OrderedDict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from campfire import OneShot, Pruner

RULES = {"body": "ck", "tall": "vector", "point": "fine", "head": "fine"}
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": lambda groups: SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda groups: SGD(groups, lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda groups: Adam(groups, lr=0.01, weight_decay=0.01, amsgrad=True),
    "adamw": lambda groups: AdamW(groups, lr=0.01, weight_decay=0.1),
}


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    layers = OrderedDict(
        stem=nn.Conv2d(3, 8, 3, padding=1),
        norm=nn.BatchNorm2d(8),
        relu=nn.ReLU(),
        body=nn.Conv2d(8, 16, 3, padding=1, stride=2, bias=False),
        relu2=nn.ReLU(),
        tall=nn.Conv2d(16, 32, 3, padding=1),
        relu3=nn.ReLU(),
        point=nn.Conv2d(32, 16, 1),
        pool=nn.AdaptiveAvgPool2d(2),
        flat=nn.Flatten(),
        head=nn.Linear(64, 10),
    )
    return nn.Sequential(layers).to(dtype)


def groups_of(model: nn.Module) -> list[dict]:
    """Matrices first, then vectors without decay: values must stay in the first group."""
    return [
        {"params": [p for p in model.parameters() if p.dim() > 1], "name": "matrices"},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0, "name": "vectors"},
    ]


def frozen(optimizer: str = "sgd", dtype: torch.dtype = torch.float64, rules: object = RULES, steps: int = 3):
    """A model, its optimizer with a state, and a pruner that has done its work."""
    model = net(dtype)
    return frozen_model(model, OPTIMIZERS[optimizer](groups_of(model)), rules, steps)


def frozen_model(model: nn.Module, optimizer: Optimizer, rules: object = RULES, steps: int = 3):
    pruner = Pruner(model, rules, OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=1)
    train(model, optimizer, range(steps))
    assert pruner.frozen
    return model, optimizer, pruner


def loss_of(model: nn.Module, step: int) -> Tensor:
    """The loss on batch number ``step``, the same in every run."""
    generator = torch.Generator().manual_seed(1000 + step)
    dtype = next(model.parameters()).dtype
    x = torch.randn(4, 3, 6, 6, generator=generator, dtype=torch.float64).to(dtype)
    y = torch.randint(10, (4,), generator=generator)
    return nn.functional.cross_entropy(model(x), y)


def train(model: nn.Module, optimizer: Optimizer, steps: Iterable[int]) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def assert_close_models(a: nn.Module, b: nn.Module, tolerance: float = 1e-9) -> None:
    ours, theirs = a.state_dict(), b.state_dict()
    assert list(ours) == list(theirs)
    for name, x in ours.items():
        torch.testing.assert_close(x, theirs[name], rtol=tolerance, atol=tolerance)


def same_models(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(x, theirs[k]) for k, x in ours.items())
