"""``campfire explain MODEL_OR_RUN``: kernels, ratios, and the reasons of all others."""

import json
import pathlib
import sys
import types

import pytest
import torch
from torch import nn

import campfire
from campfire.cli import main
from campfire.cli.explain_kernels import text
from campfire.kernels import KERNELS
from campfire.kernels.choice import PASSES

SMALL = ["--size", "16", "--batch", "2", "--dispatch", "model"]


class Odd(nn.Module):
    """A dilated, a grouped and an ordinary convolution."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.dilated = nn.Conv2d(32, 32, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=2)
        self.plain = nn.Conv2d(32, 64, 3, padding=1)
        self.head = nn.Linear(64, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.plain(self.grouped(self.dilated(self.stem(x)))).mean((2, 3)))


@pytest.fixture(autouse=True)
def odd_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own."""
    module = types.ModuleType("odd_models")
    module.Odd = Odd  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "odd_models", module)


def explained(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert main(["explain", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_what_becomes_of_orders(capsys: pytest.CaptureFixture[str]) -> None:
    """The outputs of blocks are regrouped: in a fused copy the next convolution reads them so, where it alone does."""
    found = explained(capsys, "resnet8", *SMALL, "--structure", "hrbp:rows=16", "--sparsity", "0.8")
    assert found["orders"]["layer2.0.conv1"] == "as they lie, absorbed by layer2.0.conv2"
    said = "layer2.0.conv1  regrouped outputs, in a fused copy as they lie, absorbed by layer2.0.conv2"
    assert said in text(found).splitlines()


def test_a_model_layer_by_layer(capsys: pytest.CaptureFixture[str]) -> None:
    found = explained(capsys, "resnet8", *SMALL, "--structure", "ck", "--sparsity", "0.6")
    assert (found["kind"], found["batch"], found["measured"]) == ("model", 2, False)
    assert "stem" in " ".join(found["dense"]) or "conv1" in found["dense"]
    assert found["orders"] == {}
    for layer in found["layers"]:
        assert layer["density"] == pytest.approx(0.4, abs=0.05)
        for name in PASSES:
            run = layer["passes"][name]
            assert run["predicted"] > 0
            assert set(run["why_not"]) == set(KERNELS) - {"reference", run["kernel"]}
    assert main(["explain", "resnet8", *SMALL]) == 0
    page = capsys.readouterr().out
    assert "predicted" in page
    assert "not blocks" in page


def test_what_no_kernel_serves_is_dense_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    name = "odd_models:Odd"
    found = explained(capsys, name, *SMALL, "--structure", "ck")
    layers = {layer["name"]: layer for layer in found["layers"]}
    dilated = layers["dilated"]["passes"]["forward"]
    assert dilated["kernel"] == "reference"
    assert "dilation" in dilated["why_not"]["lanes"]
    assert "groups" in found["dense"].get("grouped", "") or "groups" in str(layers["grouped"]["passes"])
    half = explained(capsys, name, *SMALL, "--structure", "ck", "--dtype", "float16")
    plain = next(layer for layer in half["layers"] if layer["name"] == "plain")
    assert plain["dtype"] == "float16"
    assert plain["passes"]["d_input"]["kernel"] == "reference"
    assert "float16" in plain["passes"]["d_input"]["why_not"]["lanes"]


def test_a_run_shows_the_plan_it_ran_by(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"model": "resnet8", "model_kwargs": {"width": 0.25}, "epochs": 3, "img_size": 16, "batch_size": 256}
    run = tmp_path / "run"
    campfire.train("digits", output=run, compress=True, dispatch="model", **flags)
    saved = torch.load(run / "last.pt", weights_only=True)["plan"]
    for place in (run, run / "last.pt", run / "model.safetensors"):
        found = explained(capsys, str(place))
        assert found["saved"]
        assert found["batch"] == 256
        assert found["layers"] == json.loads(json.dumps(saved["layers"]))
    other = explained(capsys, str(run), "--batch", "3", "--dispatch", "off")
    assert not other["saved"]
    assert other["batch"] == 3
    assert {run["kernel"] for layer in other["layers"] for run in layer["passes"].values()} == {"reference"}
    campfire.train("digits", output=tmp_path / "dense", structure="dense", **flags)
    assert main(["explain", str(tmp_path / "dense")]) == 2
    assert "dense run" in capsys.readouterr().err


def test_a_structure_wins_over_a_file_of_its_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ck").mkdir()
    assert main(["explain", "ck"]) == 0
    assert "write ./ck" in capsys.readouterr().out
    assert main(["explain", "./ck"]) == 2
    assert "last.pt" in capsys.readouterr().err
    assert main(["explain", "resnet8", "--batch", "0"]) == 2
    assert "--batch" in capsys.readouterr().err
