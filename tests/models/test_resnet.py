"""ResNets against Hugging Face's (logits), torchvision's (keys and initial weights) and published counts."""

import re
from collections import Counter
from types import ModuleType

import pytest
import torch
from torch import fx, nn

from campfire.errors import UsageError
from campfire.models import resnet
from campfire.models.resnet import ResNet

IMAGENET = {  # entries of the state dict, parameters
    "resnet18": (122, 11_689_512),
    "resnet34": (218, 21_797_672),
    "resnet50": (320, 25_557_032),
    "resnet50_v1": (320, 25_557_032),
    "resnet101": (626, 44_549_160),
}
CIFAR = {"resnet8": 78_042, "resnet20": 272_474, "resnet32": 466_906, "resnet56": 855_770}
BASIC = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
HUGGING_FACE = {
    "resnet18": {**BASIC, "depths": [2, 2, 2, 2]},
    "resnet34": {**BASIC, "depths": [3, 4, 6, 3]},
    "resnet50": {"depths": [3, 4, 6, 3]},
    "resnet50_v1": {"depths": [3, 4, 6, 3], "downsample_in_bottleneck": True},
    "resnet101": {"depths": [3, 4, 23, 3]},
    "resnet20": {"layer_type": "basic", "embedding_size": 16, "hidden_sizes": [16, 32, 64], "depths": [3, 3, 3]},
}
RESNET50_CONVS = {  # (K, C, R = S): how many
    (64, 3, 7): 1,
    **{(64, 64, 1): 1, (64, 256, 1): 2, (256, 64, 1): 4, (64, 64, 3): 3},
    **{(128, 256, 1): 1, (128, 512, 1): 3, (512, 128, 1): 4, (512, 256, 1): 1, (128, 128, 3): 4},
    **{(256, 512, 1): 1, (256, 1024, 1): 5, (1024, 256, 1): 6, (1024, 512, 1): 1, (256, 256, 3): 6},
    **{(512, 1024, 1): 1, (512, 2048, 1): 2, (2048, 512, 1): 3, (2048, 1024, 1): 1, (512, 512, 3): 3},
}


def on_meta(name: str, **options: object) -> ResNet:
    with torch.device("meta"):
        return getattr(resnet, name)(**options)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def convs(model: nn.Module) -> dict[str, nn.Conv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}


def randomised(name: str, **options: object) -> ResNet:
    """With random affine parameters and statistics too, where batch normalisation starts at 0 and 1."""
    torch.manual_seed(0)
    model = getattr(resnet, name)(num_classes=10, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1)
    return model.eval()


def hugging_face_key(key: str) -> str:
    """``layer2.0.conv1.weight`` -> ``resnet.encoder.stages.1.layers.0.layer.0.convolution.weight``."""
    key = re.sub(r"^(conv|bn)1\.", r"resnet.embedder.embedder.\1.", key)
    key = re.sub(r"^fc\.", "classifier.1.", key)
    key = re.sub(r"^layer(\d)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}.layers.", key)
    key = key.replace("downsample.0.", "shortcut.conv.").replace("downsample.1.", "shortcut.bn.")
    key = re.sub(r"\.(conv|bn)(\d)\.", lambda m: f".layer.{int(m[2]) - 1}.{m[1]}.", key)
    return key.replace(".bn.", ".normalization.").replace(".conv.", ".convolution.")


def hugging_face(model: ResNet, config: dict[str, object], small_input: bool) -> nn.Module:
    """Hugging Face's network with this model's weights."""
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        twin = transformers.ResNetForImageClassification(transformers.ResNetConfig(num_labels=10, **config))
    state = {hugging_face_key(key): tensor for key, tensor in model.state_dict().items()}
    if small_input:  # a stem that Hugging Face does not have: lend it ours, compare what follows
        twin.resnet.embedder = nn.Sequential(model.conv1, model.bn1, model.relu)
        state = {key: tensor for key, tensor in state.items() if "embedder" not in key}
    twin.load_state_dict(state, assign=True, strict=not small_input)
    return twin.eval()


@pytest.mark.parametrize("name", HUGGING_FACE)
@torch.no_grad()
def test_logits_are_those_of_hugging_face_bit_for_bit(name: str) -> None:
    model, images = randomised(name), torch.randn(1, 3, 64, 64)
    twin = hugging_face(model, HUGGING_FACE[name], small_input=name == "resnet20")
    assert torch.equal(model(images), twin(images).logits)


@torch.no_grad()
def test_v1_weights_give_other_logits_in_v15() -> None:
    v1, v15, images = randomised("resnet50_v1"), on_meta("resnet50", num_classes=10), torch.randn(1, 3, 64, 64)
    v15.load_state_dict(v1.state_dict(), assign=True)
    assert not torch.allclose(v1(images), v15.eval()(images), rtol=0.01)


def test_v1_and_v15_differ_in_the_place_of_the_stride_only() -> None:
    v15, v1 = convs(on_meta("resnet50")), convs(on_meta("resnet50_v1"))
    strided = {f"layer{i}.0.downsample.0" for i in (2, 3, 4)} | {"conv1"}
    assert {n for n, c in v15.items() if c.stride != (1, 1)} == strided | {f"layer{i}.0.conv2" for i in (2, 3, 4)}
    assert {n for n, c in v1.items() if c.stride != (1, 1)} == strided | {f"layer{i}.0.conv1" for i in (2, 3, 4)}


@pytest.mark.parametrize("name", IMAGENET)
def test_entries_and_parameters(name: str) -> None:
    model = on_meta(name)
    assert (len(model.state_dict()), parameters(model)) == IMAGENET[name]


@pytest.mark.parametrize("name", ["resnet50", "resnet50_v1"])
def test_convolutions_of_resnet50(name: str) -> None:
    weights = {n: c.weight for n, c in convs(on_meta(name)).items()}
    assert len(weights) == 53
    assert Counter(tuple(w.shape[:3]) for w in weights.values()) == RESNET50_CONVS
    assert sum(w.numel() for w in weights.values()) == 23_454_912
    by_size = {r: [w for w in weights.values() if w.shape[2:] == (r, r)] for r in (1, 3, 7)}
    assert {r: sum(w.numel() for w in ws) for r, ws in by_size.items()} == {1: 12_128_256, 3: 11_317_248, 7: 9_408}
    assert sum(w.shape[0] * w.shape[1] for w in by_size[3]) == 1_257_472
    assert sum(w.numel() for n, w in weights.items() if "downsample" in n) == 2_768_896


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_keys_and_shapes_of_torchvision(name: str, torchvision: ModuleType) -> None:
    ours = on_meta(name, num_classes=7).state_dict()
    with torch.device("meta"):
        theirs = torchvision.models.get_model(name, num_classes=7).state_dict()
    assert [(k, v.shape, v.dtype) for k, v in ours.items()] == [(k, v.shape, v.dtype) for k, v in theirs.items()]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_same_seed_gives_the_weights_of_torchvision(name: str, torchvision: ModuleType) -> None:
    torch.manual_seed(3)
    ours = getattr(resnet, name)(num_classes=7).state_dict()
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(name, num_classes=7).state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_parameters(name: str) -> None:
    """Option B: 272,474 in ResNet-20, the 2,752 of two projections more than the 269,722 of option A."""
    model = on_meta(name)
    assert parameters(model) == CIFAR[name]
    assert sum(parameters(m) for n, m in model.named_modules() if n.endswith("downsample")) == 2_752


@pytest.mark.parametrize("width", [0.5, 1.25, 2.0, 4])
def test_width_multiplies_every_channel_count(width: float) -> None:
    shapes, wide = ({n: c.weight.shape for n, c in convs(on_meta("resnet20", width=w)).items()} for w in (1.0, width))
    assert wide.keys() == shapes.keys()
    for name, shape in shapes.items():
        inputs = 3 if name == "conv1" else shape[1] * width
        assert tuple(wide[name]) == (shape[0] * width, inputs, *shape[2:])


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf")])
def test_width_must_be_a_positive_number(width: float) -> None:
    with pytest.raises(UsageError, match="positive number"):
        resnet.resnet20(width=width)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_small_input_changes_the_stem_and_nothing_else(name: str) -> None:
    small, large = on_meta(name, small_input=True), on_meta(name)
    assert list(small.state_dict()) == list(large.state_dict())
    assert (small.conv1.kernel_size, small.conv1.stride) == ((3, 3), (1, 1))
    assert [c.stride for c in convs(small).values()][1:] == [c.stride for c in convs(large).values()][1:]
    with torch.device("meta"):
        assert small.maxpool(small.conv1(torch.empty(1, 3, 32, 32))).shape == (1, 64, 32, 32)
        assert large.maxpool(large.conv1(torch.empty(1, 3, 32, 32))).shape == (1, 64, 8, 8)


@torch.no_grad()
def test_traces_without_nodes_for_absent_layers() -> None:
    model, images = randomised("resnet8"), torch.randn(2, 3, 32, 32)
    traced = fx.symbolic_trace(model)
    assert torch.equal(traced(images), model(images))
    modules = {type(traced.get_submodule(str(n.target))) for n in traced.graph.nodes if n.op == "call_module"}
    assert modules == {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AdaptiveAvgPool2d, nn.Linear}
