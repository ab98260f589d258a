"""Iterative (Han et al., Mao et al.): train, prune, retrain, prune more; by list and by threshold."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, Steps
from campfire.errors import DoesNotFit, UsageError
from campfire.methods import named

LIST = Steps(((1, 0.25), (3, 0.5), (5, 0.75)))


pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.Flatten())


def run(
    net: nn.Module, structure: str, schedule: object, method: str, epochs: int = 7, lr: float = 0.0
) -> Iterator[Pruner]:
    optimizer = SGD(net.parameters(), lr=lr)
    pruner = Pruner(net, {"2": structure}, schedule, method=method).attach(optimizer, steps_per_epoch=2)
    for step in range(2 * epochs):
        optimizer.zero_grad()
        net(torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        optimizer.step()
        yield pruner


def test_by_list_prunes_once_at_each_epoch_and_retrains_between():
    history = [pruner.sparsity for pruner in run(model(), "kernel", LIST, "iterative", lr=0.1)]
    assert history == [0.0] * 2 + [0.25] * 4 + [0.5] * 4 + [0.75] * 4


def test_by_list_frozen_at_the_end():
    states = [(pruner.frozen, pruner.stages[0].updates) for pruner in run(model(), "fine", LIST, "iterative")]
    assert [f for f, _ in states].index(True) == 10  # one step after epoch 5 began
    assert states[-1] == (True, 3)


def test_threshold_is_mean_over_root_mean_square_of_the_living_units():
    """Hand count: after the i-th pruning no living unit is below (threshold + i step) RMS of those before it."""
    net = model()
    weight = net[2].weight.detach()
    kernels = weight.abs().mean((2, 3)).flatten()
    expected, alive = [], torch.ones_like(kernels, dtype=torch.bool)
    for rounds in range(3):
        cut = (0.5 + rounds * 0.25) * kernels[alive].square().mean().sqrt()
        alive &= kernels > cut
        expected.append(1 - float(alive.float().mean()))
    *_, pruner = run(net, "kernel", Steps(((1, 0.9), (3, 0.9), (5, 0.9))), "iterative:threshold=0.5")
    assert pruner.sparsity == pytest.approx(expected[-1])
    assert torch.equal(pruner.masks["2"].keep[:, :, 0, 0].flatten(), alive)
    assert len(set(expected)) == 3


@pytest.mark.parametrize("structure", ["fine", "vector", "kernel", "filter"])
def test_threshold_on_every_grain(structure):
    history = [p.sparsity for p in run(model(), structure, LIST, "iterative:threshold=0.3,step=0.4", lr=0.05)]
    assert history == sorted(history)
    assert 0 < history[-1] <= 0.75


def test_the_list_caps_the_threshold():
    *_, pruner = run(model(), "fine", LIST, "iterative:threshold=9")
    assert pruner.sparsity == 0.75
    assert pruner.report().layers[1].requested == 0.75


def test_a_jump_over_the_list_is_one_pruning():
    net = model()
    optimizer = SGD(net.parameters(), lr=0.0)
    pruner = Pruner(net, {"2": "fine"}, LIST, method="iterative:threshold=0.3").attach(optimizer, steps_per_epoch=1)
    pruner.set_epoch(9)
    counts = []
    for _ in range(4):
        optimizer.zero_grad()
        net(torch.ones(1, 2, 5, 5)).sum().backward()
        optimizer.step()
        counts.append(pruner.sparsity)
    assert len(set(counts)) == 1
    assert counts[0] > 0
    assert pruner.frozen


def test_one_shot():
    *_, pruner = run(model(), "ck", OneShot(2, 0.5), "iterative")
    assert pruner.sparsity == 0.5


def test_a_layer_of_zeros_stays():
    net = model()
    nn.init.zeros_(net[2].weight)
    *_, pruner = run(net, "fine", LIST, "iterative:threshold=0.5")
    assert pruner.sparsity == 0.0


def test_an_era_does_not_fit():
    with pytest.raises(DoesNotFit, match="prunes at the epochs of a Steps schedule, and Era has none"):
        Pruner(model(), "ck", Era(0, 2, 0.5), method="iterative")


@pytest.mark.parametrize("spec", ["iterative:threshold=-1", "iterative:step=-0.1"])
def test_negative_thresholds(spec):
    with pytest.raises(UsageError, match="threshold and step are >= 0"):
        named(spec)
