"""VGG against torchvision's (logits, keys, initial weights) and published counts."""

from types import ModuleType

import pytest
import torch
from torch import nn

from campfire.models import vgg
from campfire.models.vgg import VGG

NETS = {  # entries of the state dict, parameters, indices of the convolutions in `features`
    "vgg11_bn": (62, 132_868_840, [0, 4, 8, 11, 15, 18, 22, 25]),
    "vgg13_bn": (76, 133_053_736, [0, 3, 7, 10, 14, 17, 21, 24, 28, 31]),
    "vgg16_bn": (97, 138_365_992, [0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40]),
}


def on_meta(name: str, **options: object) -> VGG:
    with torch.device("meta"):
        return getattr(vgg, name)(**options)


@pytest.mark.parametrize("name", NETS)
def test_keys_and_parameters(name: str) -> None:
    entries, parameters, indices = NETS[name]
    model = on_meta(name)
    assert (len(model.state_dict()), sum(p.numel() for p in model.parameters())) == (entries, parameters)
    assert [i for i, module in enumerate(model.features) if isinstance(module, nn.Conv2d)] == indices
    assert all([type(m) for m in model.features[i : i + 3]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] for i in indices)
    assert [i for i, module in enumerate(model.classifier) if isinstance(module, nn.Linear)] == [0, 3, 6]


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_layers_and_features_of_torchvision(name: str, torchvision: ModuleType) -> None:
    ours = on_meta(name, num_classes=7)
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=7)
    assert [(k, v.shape) for k, v in ours.state_dict().items()] == [
        (k, v.shape) for k, v in theirs.state_dict().items()
    ]
    assert str(ours.avgpool) == str(theirs.avgpool).replace("(7, 7)", "7")
    assert [type(m) for m in ours.classifier] == [type(m) for m in theirs.classifier]
    torch.manual_seed(0)
    features, images = getattr(vgg, name)(small_input=True).features.eval(), torch.randn(1, 3, 64, 64)
    twin = theirs.features.to_empty(device="cpu").eval()
    twin.load_state_dict(features.state_dict())
    assert torch.equal(features(images), twin(images))


@torch.no_grad()
def test_same_seed_gives_the_weights_of_torchvision(torchvision: ModuleType) -> None:
    torch.manual_seed(3)
    ours = vgg.vgg11_bn(num_classes=7).state_dict()
    torch.manual_seed(3)
    theirs = torchvision.models.vgg11_bn(num_classes=7).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("pixels", [28, 32, 64])
@torch.no_grad()
def test_small_input_has_the_same_features_and_a_compact_classifier(pixels: int) -> None:
    small, large = on_meta("vgg11_bn", small_input=True), on_meta("vgg11_bn")
    assert list(small.state_dict()) == list(large.state_dict())
    shapes = [tuple(m.weight.shape) for m in small.classifier if isinstance(m, nn.Linear)]
    assert shapes == [(512, 512), (512, 512), (1000, 512)]
    with torch.device("meta"):
        assert small(torch.empty(2, 3, pixels, pixels)).shape == (2, 1000)
