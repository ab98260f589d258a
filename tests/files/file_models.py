"""Models and state dicts that tests of files share."""

import copy

import torch
from torch import Tensor, nn

from campfire import OneShot, Pruner

ODD = [float("nan"), -0.0, float("inf"), -float("inf")]


def net() -> nn.Sequential:
    """Two convolutions, batch normalisation, and a linear layer."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Conv2d(32, 64, 1), nn.Flatten(),
        nn.Linear(64 * 16, 10),
    )  # fmt: skip


def pruned(structure: str = "ck", sparsity: float = 0.7) -> tuple[nn.Sequential, Pruner]:
    """The net after one step of pruning."""
    model = net()
    pruner = Pruner(model, structure, OneShot(0, sparsity))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    pruner.attach(optimizer, steps_per_epoch=1)
    model(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    return model, pruner


def same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return a.keys() == b.keys() and all(
        a[n].dtype == b[n].dtype
        and a[n].shape == b[n].shape
        and torch.equal(a[n].contiguous().view(-1).view(torch.uint8), b[n].contiguous().view(-1).view(torch.uint8))
        for n in a
    )


def plus_zero(state: dict[str, Tensor], masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict whose dead weights are +0, as files give them back."""
    state = copy.deepcopy(state)
    for name, keep in masks.items():
        state[name].masked_fill_(~keep.view(state[name].shape), 0)
    return state
