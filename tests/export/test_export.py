"""Exports: what they compute, what they are refused for, and that a bad file is never left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from campfire import OneShot, Pruner, SparseConv2d, cli, models
from campfire.errors import CampfireError, DoesNotFit, UnknownName, UsageError
from campfire.export import REGISTRY, Subject, base, export
from campfire.files import load


@pytest.fixture(scope="module")
def subject() -> Subject:
    torch.manual_seed(0)
    model = models.create("resnet8", num_classes=10, width=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "kernel", OneShot(0, 0.75)).attach(optimizer, steps_per_epoch=1)
    model(torch.randn(8, 3, 16, 16)).square().mean().backward()
    optimizer.step()
    images = torch.randn(2, 3, 16, 16)
    return Subject(model.eval(), images, pruner, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), ("a", "b"), "kernel")


def same(state: dict[str, torch.Tensor], model: nn.Module) -> bool:
    return all(torch.equal(state[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt"])
def test_dense(name: str, subject: Subject, tmp_path: Path) -> None:
    found = export(subject, tmp_path / name, "dense")
    path = tmp_path / name
    state = safetensors.torch.load_file(path) if name.endswith("s") else torch.load(path, weights_only=True)
    assert same(state, subject.model)
    assert found["bytes"] == path.stat().st_size
    assert found["zeros"] >= sum(int((~m.keep).sum()) for m in subject.pruner.masks.values())


def test_packed(subject: Subject, tmp_path: Path) -> None:
    found = export(subject, tmp_path / "net.campfire", "packed")
    assert same(load(tmp_path / "net.campfire"), subject.model)
    few = export(subject, tmp_path / "few.campfire", "packed", values="codebook:4")
    assert few["packed_bytes"] < 0.25 * found["packed_bytes"] < 0.1 * found["dense_bytes"]


@pytest.mark.parametrize("pixels", [False, True])
def test_pt2(pixels: bool, subject: Subject, tmp_path: Path) -> None:
    found = export(subject, tmp_path / "net.pt2", "pt2", pixels=pixels)
    assert found["max_abs_difference"] <= 1e-4 * found["largest_logit"]
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2"]
    x = torch.rand(5, 3, 16, 16)
    normal = (x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2 if pixels else x
    with torch.no_grad():
        logits = torch.export.load(tmp_path / "net.pt2").module()(x)
        torch.testing.assert_close(logits, subject.model(normal), rtol=1e-4, atol=1e-4)


def test_a_compressed_model_is_exported_as_the_dense_one(subject: Subject, tmp_path: Path) -> None:
    model, name = subject.dense(), "layer1.0.conv1"
    model.layer1[0].conv1 = SparseConv2d.of(model.layer1[0].conv1, subject.pruner.masks[name], kernel="reference")
    export(Subject(model, subject.images), tmp_path / "net.pt2", "pt2")
    assert isinstance(model.layer1[0].conv1, SparseConv2d)  # the model itself stays compressed
    weights = torch.export.load(tmp_path / "net.pt2").state_dict
    assert torch.equal(weights["layer1.0.conv1.weight"], subject.model.layer1[0].conv1.weight)


def test_a_file_that_computes_something_else_is_not_kept(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.pt2").write_text("what was there")
    wrong = subject.dense()
    wrong.fc.weight.data[0, 0] += 0.01
    real = torch.export.export
    monkeypatch.setattr(torch.export, "export", lambda model, *args, **kwargs: real(wrong, *args, **kwargs))
    with pytest.raises(base.CheckFailed, match="computes something else"):
        export(subject, tmp_path / "net.pt2", "pt2")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["what was there"]
    assert base.CheckFailed.exit_code == 4


class Untraceable(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if float(x.sum()) > 0 else -x


class Returns(nn.Module):
    def __init__(self, end: Callable[[torch.Tensor], object]):
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 4, 3), end

    def forward(self, x: torch.Tensor) -> object:
        return self.end(self.conv(x))


@pytest.mark.parametrize(
    ("end", "says"),
    [
        (lambda y: {"logits": y}, "by one tensor, and this one returns a dict; export a module that"),
        (lambda y: (y, y), "returns a tuple"),
        (lambda y: (-y.abs() - 1).log(), "not finite of its images; look for weights"),
    ],
    ids=["dict", "tuple", "nan"],
)
def test_what_cannot_be_compared(end: Callable[[torch.Tensor], object], says: str, tmp_path: Path) -> None:
    with pytest.raises(CampfireError, match=says):
        export(Subject(Returns(end).eval(), torch.randn(2, 3, 8, 8)), tmp_path / "x.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_does_not_run_is_a_failed_check(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> Any:
        return SimpleNamespace(module=lambda: lambda x: x.view(-1, 7))

    monkeypatch.setattr(torch.export, "load", load)
    with pytest.raises(
        base.CheckFailed, match=r"the exported program cannot be run on images of shape .*nothing was written"
    ):
        export(subject, tmp_path / "x.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'onnx'"):
        export(subject, tmp_path / "x", "onx")
    with pytest.raises(UnknownName, match="'sparse'"):
        export(subject, tmp_path / "x.pt", "dense", sparse=True)
    with pytest.raises(DoesNotFit, match=r"its files end in \.pt2; got 'net\.onnx'"):
        export(subject, tmp_path / "net.onnx", "pt2")
    with pytest.raises(UsageError, match="there is no folder"):
        export(subject, tmp_path / "nowhere" / "x.pt", "dense")
    with pytest.raises(UsageError, match="is a folder"):
        export(subject, tmp_path, "packed")
    with pytest.raises(CampfireError, match="mean and deviation are not known"):
        export(Subject(subject.model, subject.images), tmp_path / "x.pt2", "pt2", pixels=True)
    with pytest.raises(CampfireError, match="cannot trace Untraceable"):
        export(Subject(Untraceable(), subject.images), tmp_path / "x.pt2", "pt2")
    assert list(tmp_path.iterdir()) == []


def test_every_format_says_what_it_is() -> None:
    assert {"dense", "packed", "onnx", "pt2"} <= set(REGISTRY)
    assert all(format.summary for format in REGISTRY.values())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = ["--size", "16", "--model-kwargs", "width=0.5", "num_classes=3", "--structure", "ck"]
    file = str(tmp_path / "net.pt")
    assert cli.main(["export", "resnet8", *model, "--format", "dense", "-o", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["structure"] == "ck"
    assert cli.main(["export", file, *model[:4], "--model", "resnet8", "--format", "pt2", "-o", file + "2"]) == 0
    assert "checked with torch.export.load: logits differ by 0 at most" in capsys.readouterr().out
    assert cli.main(["export", "--list"]) == 0
    assert "torch.export's program" in capsys.readouterr().out
    assert cli.main(["export", "resnet8"]) == 2
    assert cli.main(["export", "resnet8", "-o", file, "--format", "c++"]) == 2
