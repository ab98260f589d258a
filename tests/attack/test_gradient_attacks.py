"""FGSM and PGD: equal to a reference library, inside their balls, and the same for an image whatever its neighbours."""

import warnings

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from campfire.attack import fgsm, named, pgd, right
from campfire.attack.norms import NORMS

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports deprecated names of scipy
    foolbox = pytest.importorskip("foolbox", reason="the dev extra is not installed")


def net(seed: int = 0, channels: int = 3) -> nn.Module:
    """A network with everything that a small CNN has."""
    torch.manual_seed(seed)
    layers = [
        nn.Conv2d(channels, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
    ]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    model(torch.rand(32, channels, 12, 12))  # running statistics that are not those of the start
    return model.eval()


def images(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Bytes over 255, so that many lie at the edges of the box, and the labels that a network gives some of them."""
    g = torch.Generator().manual_seed(seed)
    x = (torch.randint(-60, 316, (count, 3, 12, 12), generator=g).clamp(0, 255) / 255).float()
    return x, torch.randint(0, 5, (count,), generator=g)


def by_foolbox(attack: "foolbox.attacks.Attack", model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
    theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    return attack.run(theirs, x, foolbox.criteria.Misclassification(y), epsilon=eps)


@pytest.mark.parametrize("eps", [1 / 255, 8 / 255, 0.3])
@pytest.mark.parametrize("count", [1, 7, 16])
def test_fgsm_is_foolboxs_bit_for_bit(eps: float, count: int) -> None:
    model, (x, y) = net(), images(count)
    theirs = by_foolbox(foolbox.attacks.LinfFastGradientAttack(), model, x, y, eps)
    ours = fgsm(model, x, y, eps)
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, x)


@pytest.mark.parametrize("norm", list(NORMS))
def test_all_distances_of_fgsm_share_a_gradient(norm: str) -> None:
    model, (x, y), passes = net(), images(5), []
    attack, eps, where = named("fgsm", norm=norm), [0.0, 1 / 255, 0.3], ((0.0, 1.0), range(5))
    found = list(attack.each(lambda x: passes.append(x) or model(x), x, y, eps, *where))
    assert len(passes) == 1
    alone = [attack(model, x, y, distance, *where) for distance in eps]
    assert [torch.equal(a, b) for a, b in zip(found, alone, strict=True)] == [True] * 3
    assert not torch.equal(found[1], found[2])


@pytest.mark.parametrize("steps", [1, 10])
def test_pgd_is_foolboxs_bit_for_bit(steps: int) -> None:
    model, (x, y) = net(), images(9)
    theirs = foolbox.attacks.LinfProjectedGradientDescentAttack(abs_stepsize=2 / 255, steps=steps, random_start=False)
    ours = pgd(model, x, y, 8 / 255, steps=steps, step_size=2 / 255, start="image")
    assert torch.equal(ours, by_foolbox(theirs, model, x, y, 8 / 255))


def test_l2_is_foolboxs() -> None:
    model, (x, y) = net(), images(9)
    theirs = by_foolbox(foolbox.attacks.L2FastGradientAttack(), model, x, y, 0.7)
    assert (fgsm(model, x, y, 0.7, norm="l2") - theirs).abs().max() < 1e-6
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(abs_stepsize=0.2, steps=5, random_start=False)
    ours = pgd(model, x, y, 0.7, norm="l2", steps=5, step_size=0.2, start="image")
    assert (ours - by_foolbox(attack, model, x, y, 0.7)).abs().max() < 1e-5


@settings(max_examples=25)
@given(
    eps=st.floats(0.001, 1), norm=st.sampled_from(list(NORMS)), seed=st.integers(0, 3), restarts=st.integers(1, 2),
    start=st.sampled_from(["random", "image"]),
)  # fmt: skip
def test_nothing_leaves_its_ball_or_the_box(eps: float, norm: str, seed: int, restarts: int, start: str) -> None:
    model, (x, y) = net(seed), images(4, seed)
    found = (
        fgsm(model, x, y, eps, norm=norm),
        pgd(model, x, y, eps, norm=norm, steps=2, restarts=restarts, start=start),
    )
    for moved in found:
        change = (moved - x).flatten(1)
        length = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
        assert (length <= eps * (1 + 1e-5) + 1e-7).all()
        assert ((moved >= 0) & (moved <= 1)).all()


def test_an_image_is_moved_by_itself() -> None:
    """What is drawn for an image depends on its key alone; sums over a batch would depend on its neighbours."""
    model, (x, y) = net().double(), images(6)
    x = x.double()
    together = pgd(model, x, y, 0.1, steps=3, keys=range(6))
    alone = pgd(model, x[4:5], y[4:5], 0.1, steps=3, keys=[4])
    assert (together[4:5] - alone).abs().max() < 1e-12
    assert not torch.equal(pgd(model, x[4:5], y[4:5], 0.1, steps=3, keys=[5]), alone)


def test_restarts_keep_what_misled() -> None:
    model, (x, _) = net(), images(64)
    y = model(x).argmax(1)
    left = [int(right(model, pgd(model, x, y, 0.02, steps=1, restarts=n), y).sum()) for n in (1, 4)]
    assert left[1] <= left[0] < 64
    once = pgd(model, x, y, 0.02, steps=1)
    misled = ~right(model, once, y)
    assert misled.any()
    assert torch.equal(pgd(model, x, y, 0.02, steps=1, restarts=4)[misled], once[misled])


@pytest.mark.parametrize("norm", list(NORMS))
def test_without_a_gradient_nothing_moves(norm: str) -> None:
    model, (x, y) = nn.Sequential(nn.Flatten(), nn.Linear(432, 5)), images(3)
    nn.init.zeros_(model[1].weight)
    assert torch.equal(fgsm(model, x, y, 0.1, norm=norm), x)


@pytest.mark.parametrize("norm", list(NORMS))
def test_starts_fill_the_ball(norm: str) -> None:
    draws = [NORMS[norm].draw(torch.Size((1, 2, 2)), torch.Generator().manual_seed(i)) for i in range(400)]
    length = torch.stack([d.abs().max() if norm == "linf" else d.norm() for d in draws])
    assert length.max() <= 1
    assert (length**4 < 0.5).float().mean() == pytest.approx(0.5, abs=0.1)  # as volume grows in four dimensions


def test_a_box_of_its_own_for_every_channel() -> None:
    model, (x, y) = net(), images(5)
    low, high = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.0, 0.2, 0.4], [0.5, 0.6, 1.0]))
    moved = fgsm(model, x, y, 1.0, box=(low, high))
    assert ((moved == low) | (moved == high)).all()
