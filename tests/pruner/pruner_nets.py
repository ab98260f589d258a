"""A small network, its training, and the promise that a pruner makes."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner
from campfire.mask import view4

PRUNED = {"body": (16, 8, 3, 3), "point": (16, 16, 1, 1)}  # the default scope: `stem` is the first convolution
ONCE = OneShot(0, 0.5)
ERA = Era(1, 4, 0.7)  # epochs 1 .. 5


def net(seed: int = 0) -> nn.Sequential:
    """Convolutions 3x3 and 1x1, a norm, a linear layer."""
    torch.manual_seed(seed)
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(3, 8, 3, padding=1),
            norm=nn.BatchNorm2d(8),
            relu=nn.ReLU(),
            body=nn.Conv2d(8, 16, 3, padding=1),
            relu2=nn.ReLU(),
            point=nn.Conv2d(16, 16, 1),
            pool=nn.AdaptiveAvgPool2d(2),
            flat=nn.Flatten(),
            head=nn.Linear(64, 10),
        )
    )


def loss_of(model: nn.Module, step: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """The loss on batch number ``step``, the same in every run."""
    generator = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(4, 3, 6, 6, generator=generator).to(dtype)
    y = torch.randint(10, (4,), generator=generator)
    return nn.functional.cross_entropy(model(x).float(), y)


def train(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer], steps: Iterable[int], **kwargs: object
) -> None:
    """Ordinary steps on the batches numbered ``steps``."""
    optimizers = list(optimizers)
    dtype = next(model.parameters()).dtype
    for step in steps:
        for optimizer in optimizers:
            optimizer.zero_grad(**kwargs)
        loss_of(model, step, dtype).backward()
        for optimizer in optimizers:
            optimizer.step()


def same_shaped_state(optimizer: torch.optim.Optimizer, weight: Tensor) -> list[Tensor]:
    state = optimizer.state.get(weight, {}).values()
    return [v for v in state if torch.is_tensor(v) and v.shape == weight.shape]


def assert_true_to_masks(pruner: Pruner, *optimizers: torch.optim.Optimizer, state_tensors: int | None = None) -> None:
    """Dead weights, and their optimizer state, are exactly zero; what lives is not."""
    assert pruner.masks
    for name, mask in pruner.masks.items():
        weight = pruner.layers[name].weight
        assert not view4(weight.detach())[~mask.keep].any(), f"{name}: dead weights are not zero"
        assert view4(weight.detach())[mask.keep].all(), f"{name}: living weights are zero"
        found = [s for o in optimizers for s in same_shaped_state(o, weight)]
        for state in found:
            assert not view4(state)[~mask.keep].any(), f"{name}: the state of dead weights is not zero"
            assert view4(state)[mask.keep].any(), f"{name}: the state of living weights is gone"
        if state_tensors is not None:
            assert len(found) == state_tensors, f"{name}: {len(found)} state tensors were looked at"


def run(
    model: nn.Module, rules: Any, schedule: Any = ERA, epochs: int = 7, pace: int = 2, **kwargs: Any
) -> Iterator[Pruner]:
    """A training; yields the pruner after every step."""
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = Pruner(model, rules, schedule, **kwargs).attach(optimizer, steps_per_epoch=pace)
    for step in range(epochs * pace):
        train(model, [optimizer], [step])
        yield pruner


def structures(model: nn.Module, rules: Any) -> dict[str, str]:
    return {name: str(layer.structure) for name, layer in Pruner(model, rules, ONCE).layers.items()}


def reasons(model: nn.Module, rules: Any) -> dict[str, str | None]:
    return {row.name: row.reason for row in Pruner(model, rules, ONCE).report().layers if row.structure is None}


def pruned(model: nn.Module | None = None) -> tuple[nn.Module, SGD, Pruner]:
    """A model, its optimizer, and a pruner that will prune at the first step."""
    model = net() if model is None else model
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(model, "ck", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=2)
    return model, optimizer, pruner


def zeros(model: nn.Module, pruner: Pruner) -> bool:
    """Whether every weight of ``model`` that is dead in the pruner is zero."""
    return not any(view4(model.get_submodule(n).weight)[~m.keep].any() for n, m in pruner.masks.items())
