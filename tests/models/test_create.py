"""Models by name: the zoo, torchvision, timm, one's own, and what is said when that fails."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from campfire import models
from campfire.errors import UnknownName, UsageError

OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes, hidden=4):
        super().__init__()
        self.fc = nn.Linear(hidden, num_classes)

def wide(num_classes, in_channels, small_input, **rest):
    net = Net(num_classes, **rest)
    net.seen = (in_channels, small_input)
    return net

def forwards(num_classes, **rest):
    net = Net(num_classes)
    net.seen = rest
    return net

def not_a_model(num_classes):
    return "a string"

constant = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's, on the path as ``own_nets``."""
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    return "own_nets"


@pytest.mark.parametrize("name", models.names())
def test_every_name_makes_a_model_of_any_channels_and_classes(name: str) -> None:
    with torch.device("meta"):
        model = models.create(name, num_classes=7, in_channels=1, small_input=True)
        assert model.eval()(torch.empty(2, 1, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "resnet50_v1", "vgg13_bn"])
def test_without_small_input_the_imagenet_model(name: str) -> None:
    with torch.device("meta"):
        model = models.create(name, num_classes=7)
        assert model.eval()(torch.empty(2, 3, 224, 224)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet20", "vgg11_bn"])
def test_convolutions_start_at_the_standard_deviation_of_he_over_the_outputs(name: str) -> None:
    torch.manual_seed(0)
    model = models.create(name, num_classes=10, small_input=True)
    weights = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 4000]
    assert len(weights) > 5
    for weight in weights:
        outputs, _, rows, columns = weight.shape
        assert weight.std().item() == pytest.approx((2 / (outputs * rows * columns)) ** 0.5, rel=0.05)


def test_names_need_no_torch() -> None:
    code = "import sys, campfire.models as m; assert m.names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "suggested"),
    [("resnt50", "resnet50"), ("resnet-20", "resnet20"), ("vgg16", "vgg16_bn"), ("torchvison/alexnet", None)],
)
def test_unknown_name(name: str, suggested: str | None) -> None:
    with pytest.raises(UnknownName, match=f"did you mean '{suggested}" if suggested else "torchvision/NAME"):
        models.create(name, num_classes=10)


@pytest.mark.parametrize("name", ["", ":", "a:b:c", ".x:y", "own/model", "no module:f"])
def test_malformed_name(name: str) -> None:
    with pytest.raises(UnknownName, match="no model is called"):
        models.create(name, num_classes=10)


@pytest.mark.parametrize("wrong", ["x", 2.5, True, None])
def test_counts_are_whole_numbers(wrong: Any) -> None:
    for argument in ("num_classes", "in_channels"):
        with pytest.raises(UsageError, match=f"{argument} must be a whole number, 1 or more; got {wrong!r}"):
            models.create("resnet8", **{"num_classes": 10, argument: wrong})


@pytest.mark.parametrize("wrong", [{"num_classes": 0}, {"num_classes": 10, "in_channels": 0}])
def test_counts_start_at_one(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="must be at least 1; got 0"):
        models.create("resnet8", **wrong)


def test_an_option_the_model_does_not_take_is_named_with_those_it_does() -> None:
    with pytest.raises(UsageError, match="'resnet18' takes no width; it takes num_classes, in_channels, small_input"):
        models.create("resnet18", num_classes=10, width=None)


class TestFactory:
    def test_gets_what_it_takes(self, own: str) -> None:
        model = models.create(f"{own}:Net", num_classes=3, hidden=5)
        assert model.fc.weight.shape == (3, 5)
        assert models.create(f"{own}:wide", num_classes=3, in_channels=1, small_input=True).seen == (1, True)
        assert models.create(f"{own}:wide", num_classes=3).seen == (3, False)

    def test_with_keyword_arguments_gets_what_was_asked_for(self, own: str) -> None:
        assert models.create(f"{own}:forwards", num_classes=3, in_channels=1, depth=2).seen == {
            "in_channels": 1,
            "depth": 2,
        }
        assert models.create(f"{own}:forwards", num_classes=3).seen == {}

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("Net", {"in_channels": 1}, "takes no in_channels; it takes num_classes, hidden"),
            ("Net", {"small_input": True}, "takes no small_input"),
            ("net", {}, "did you mean 'Net'"),
            ("constant", {}, "no factory in own_nets is called 'constant'"),
            ("not_a_model", {}, "must return a torch.nn.Module; it returned str"),
        ],
    )
    def test_refused(self, own: str, name: str, options: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            models.create(f"{own}:{name}", num_classes=3, **options)

    def test_of_a_missing_module(self) -> None:
        with pytest.raises(UsageError, match=r"cannot import the module 'not_there'.*PYTHONPATH"):
            models.create("not_there:net", num_classes=3)


class TestUnusableLibrary:
    @pytest.mark.parametrize("library", ["torchvision", "timm"])
    @pytest.mark.parametrize(
        "error", ["RuntimeError('operator torchvision::nms does not exist')", "ImportError('gone')"]
    )
    def test_says_how_to_get_the_matching_build(
        self, library: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / f"{library}.py").write_text(f"raise {error}")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, library, raising=False)
        monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
        cure = r"pip install 'torch==2\.13\.0' torchvision --index-url https://download.pytorch.org/whl/cpu"
        with pytest.raises(UsageError, match=rf"(?s)^{library} cannot be imported \({error[:6]}.*{cure}"):
            models.create(f"{library}/resnet18", num_classes=10)

    def test_index_of_a_plain_build_is_the_default_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torchvision", None)
        monkeypatch.setattr(torch, "__version__", "2.13.0")
        with pytest.raises(UsageError, match=r"'torch==2\.13\.0' torchvision$"):
            models.create("torchvision/resnet18", num_classes=10)


class TestTorchvision:
    @pytest.fixture(autouse=True)
    def _needs(self, torchvision: ModuleType) -> None: ...

    def test_model(self) -> None:
        ours, theirs = (models.create(f"{p}resnet18", num_classes=10) for p in ("", "torchvision/"))
        theirs.load_state_dict(ours.state_dict())
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(ours.eval()(images), theirs.eval()(images))

    @pytest.mark.parametrize(
        ("name", "pixels"), [("googlenet", 64), ("inception_v3", 299), ("alexnet", 64), ("densenet121", 64)]
    )
    def test_gives_a_plain_tensor_while_training(self, name: str, pixels: int) -> None:
        with torch.device("meta"):
            model = models.create(f"torchvision/{name}", num_classes=10).train()
            assert model(torch.empty(2, 3, pixels, pixels)).shape == (2, 10)

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("resnet19", {}, "no torchvision model is called 'resnet19'; did you mean 'resnet1"),
            ("fasterrcnn_resnet50_fpn", {}, "no torchvision model"),
            ("resnet18", {"in_channels": 1}, "for 3 channels; got in_channels=1"),
            ("resnet18", {"small_input": True}, "small_input=True"),
            ("resnet18", {"depth": 3}, "torchvision/resnet18: .*unexpected keyword argument 'depth'"),
        ],
    )
    def test_refused(self, name: str, options: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            models.create(f"torchvision/{name}", num_classes=10, **options)


class TestTimm:
    @pytest.fixture(autouse=True)
    def _needs(self, torchvision: ModuleType) -> None:
        pytest.importorskip("timm")

    def test_model_takes_our_weights(self) -> None:
        ours, theirs = (models.create(f"{p}resnet18", num_classes=10, in_channels=1) for p in ("", "timm/"))
        theirs.load_state_dict(ours.state_dict())
        images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("resnt18", {}, "no timm model is called 'resnt18'; did you mean 'resnet18'"),
            ("hf-hub:someone/resnet18", {}, "no timm model"),
            ("resnet18", {"small_input": True}, "unexpected keyword argument 'small_input'"),
        ],
    )
    def test_refused(self, name: str, options: dict[str, object], message: str) -> None:
        with pytest.raises(UsageError, match=message):
            models.create(f"timm/{name}", num_classes=10, **options)


def test_googlenet_without_torchvision_is_asked_for_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds where torchvision is not installed: what it is called with."""
    calls = []

    def get_model(name: str, **options: object) -> nn.Module:
        calls.append((name, options))
        return nn.Identity()

    zoo = SimpleNamespace(list_models=lambda module: ["googlenet"], get_model=get_model)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=zoo))
    models.create("torchvision/googlenet", num_classes=10)
    models.create("torchvision/googlenet", num_classes=10, aux_logits=True)
    plain = {"num_classes": 10, "aux_logits": False, "init_weights": True}
    assert calls == [("googlenet", plain), ("googlenet", {**plain, "aux_logits": True})]
