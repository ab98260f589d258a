"""Recipes as runs: model and pruner are built, without memory for weights, and count what the papers count."""

import functools
import math

import pytest
import torch

from campfire.config import Config, from_file, load
from campfire.config.recipes import FOLDER, recipes
from campfire.pruner import Pruner
from campfire.training.build import make_model
from campfire.training.optim import learning_rate
from campfire.training.pruning import make_pruner

IMAGES = {"imagenet": (1000, 224), "tiny-imagenet-200": (200, 224), "cifar10": (10, 32), "cifar100": (100, 32)}
NAMES = [recipe.name for recipe in recipes()]
KEPT = {  # ClickTrain, methods.md U-6: weights left of `conv|feature`
    "resnet32-cifar10-8.6x": 2_321_680, "resnet32-cifar10-13.9x": 1_436_924, "resnet50-cifar10-8.35x": 2_475_879,
    "resnet50-cifar10-12.1x": 1_707_058, "resnet50-imagenet-2.82x": 7_334_455, "vgg11-cifar10-5.85x": 1_581_720,
    "vgg11-cifar100-5.85x": 1_581_720, "vgg11-cifar100-7.9x": 1_172_124, "vgg11-cifar100-8.4x": 1_108_228,
    "vgg11-cifar10-8.7x": 1_067_264, "vgg11-cifar100-10.3x": 904_736, "vgg11-cifar10-10.3x": 900_144,
    "vgg11-cifar10-11.5x": 805_120, "vgg13-cifar10-4.0x": 2_328_228, "vgg13-cifar100-4.3x": 2_190_768,
    "vgg13-cifar10-6.2x": 1_528_856, "vgg13-cifar100-6.2x": 1_528_856, "vgg13-cifar100-8.5x": 1_111_068,
    "vgg13-cifar10-9.0x": 1_046_348, "vgg16-cifar10-5.75x": 2_558_684, "vgg16-cifar100-5.75x": 2_558_684,
    "vgg16-cifar10-8.8x": 1_673_948, "vgg16-cifar100-8.8x": 1_673_948,
}  # fmt: skip


def config_of(name: str) -> Config:
    return load(from_file(FOLDER / f"{name}.yaml"))[0]


@functools.cache
def model_of(name: str, source: str) -> torch.nn.Module:
    classes, size = IMAGES[source]
    settings = Config().model_copy(update={"model": Config().model.model_copy(update={"name": name})})
    with torch.device("meta"):
        return make_model(settings, classes, 3, size)


def pruner_of(config: Config) -> Pruner | None:
    return make_pruner(model_of(config.model.name or "", config.data.source), config)


def kept(pruner: Pruner, config: Config) -> dict[str, int]:
    """What each layer keeps in the end, by its structure's own count."""
    shares, rest = config.pruning.allocation, config.pruning.sparsity
    targets = {name: shares[name] if isinstance(shares, dict) else rest for name in pruner.layers}
    return {n: x.structure.count(x.target.shape, targets[n]) for n, x in pruner.layers.items()}


@pytest.mark.parametrize("name", NAMES)
def test_model_and_pruner_are_built(name: str, request: pytest.FixtureRequest) -> None:
    config = config_of(name)
    if (config.model.name or "").startswith("torchvision/"):
        request.getfixturevalue("torchvision")
    pruner = pruner_of(config)
    assert (pruner is None) == (config.pruning.structure == "dense")
    if pruner is not None:
        schedule = pruner.stages[-1].schedule
        assert schedule(config.optim.epochs - 1) == pytest.approx(config.pruning.sparsity)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("campfire", "clicktrain"))])
def test_the_learning_rate_epoch_by_epoch(name: str) -> None:
    optim = config_of(name).optim
    for epoch in range(optim.epochs):
        drops = sum(epoch >= at for at in optim.decay_milestones or ())
        for step in (7 * epoch, 7 * epoch + 6):
            assert learning_rate(optim, step, 7) == pytest.approx((optim.lr or 0) * 0.1**drops)


@pytest.mark.parametrize("name", KEPT)
def test_clicktrain_keeps_what_the_paper_keeps(name: str) -> None:
    config = config_of(f"clicktrain-{name}")
    pruner = pruner_of(config)
    assert pruner is not None
    first, *others = (m for m in pruner.model.modules() if isinstance(m, torch.nn.Conv2d))
    norms = 2 * sum(m.out_channels for m in (first, *others)) if name.startswith("vgg") else 0
    assert first.weight.numel() + sum(kept(pruner, config).values()) + norms == KEPT[name]


@pytest.mark.parametrize(
    ("structure", "zeros"),  # methods.md U-2, U-3: true zeros of ResNet-50, and the paper's two digits
    [("ck", {0.2: 0.199996, 0.8: 0.799995}), ("window", {0.2: 0.4788, 0.4: 0.5823, 0.6: 0.6858, 0.8: 0.8429})],
)
def test_campfires_true_sparsities(structure: str, zeros: dict[float, float]) -> None:
    config = config_of(f"campfire-tiny-{structure}")
    for target, wanted in zeros.items():
        config = config.model_copy(update={"pruning": config.pruning.model_copy(update={"sparsity": target})})
        pruner = pruner_of(config)
        assert pruner is not None
        living, total = kept(pruner, config), sum(math.prod(x.target.shape) for x in pruner.layers.values())
        assert (len(living), total) == (53, 23_454_912)
        assert 1 - sum(living.values()) / total == pytest.approx(wanted, abs=6e-5)
