"""campfire compile: sources of a run's patterned layers, compiled once, or written where nothing is."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from campfire import OneShot, Pruner, cli, models, native
from campfire.compress.compiling import Sources, sources
from campfire.kernels.codegen.plan import Need, tiled
from campfire.mask import Mask, view4
from campfire.native.building import CPP


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Need, "chosen", lambda need: tiled(need.walk, 2, 3))
    if native.library("lanes") is None:
        pytest.skip("no compiler")


@pytest.fixture(scope="module")
def pruned() -> tuple[nn.Module, Pruner]:
    torch.manual_seed(0)
    model = models.create("resnet8", num_classes=4, width=0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "pattern:book=fixed4", OneShot(0, 0.7)).attach(optimizer, steps_per_epoch=1)
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    return model, pruner


def made(pruned: tuple[nn.Module, Pruner]) -> Sources:
    model, pruner = pruned
    return sources(model, pruner.masks, torch.zeros(16, 3, 8, 8))


def test_layers_share_sources_and_others_say_why_not(pruned: tuple[nn.Module, Pruner]) -> None:
    found = made(pruned)
    names = {layer.name for layer in found.layers}
    assert {"layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv2", "layer3.0.conv2"} <= names
    assert "stride" in found.why_not["layer2.0.conv1"][0]
    assert "1x1" in found.why_not["layer2.0.downsample.0"][0]
    assert len(found.texts) < 2 * len(found.layers)
    layer = found.layers[-1]
    assert layer.figures["patterns"] == 4
    assert layer.figures["kernels"] == int(pruned[1].masks[layer.name].keep.flatten(2).any(2).sum())
    assert layer.size[0] == 16


class Odd(nn.Module):
    """Layers that have no code, called in ways that are rare."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.reflected = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.unused = nn.Conv2d(8, 8, 3)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dilated(self.grouped(self.plain(input=x)))
        return self.fc(self.reflected(x).mean((2, 3)))


def test_every_masked_layer_has_code_or_a_reason() -> None:
    model, masks = Odd(), {}
    for name, layer in model.named_children():
        keep = torch.zeros_like(view4(layer.weight), dtype=torch.bool)  # pyright: ignore[reportArgumentType]
        keep[:, :, :2, :2] = True
        masks[name] = Mask(keep)
    found = sources(model, masks, torch.zeros(2, 3, 8, 8))
    assert not found.layers
    words = {"plain": "no call", "grouped": "groups", "dilated": "dilation", "reflected": "'reflect'"}
    words |= {"unused": "no call", "fc": "a Linear"}
    assert found.why_not.keys() == words.keys()
    assert all(word in found.why_not[name][0] for name, word in words.items())


def test_what_is_written_compiles(pruned: tuple[nn.Module, Pruner], tmp_path: Path) -> None:
    found = made(pruned)
    files = found.emit(tmp_path / "new")
    text = (tmp_path / "new" / "patterns_0.cpp").read_text()
    assert "layer1.0.conv1 (8->8 3x3 @8x8), forward" in text
    assert "0: " in text
    assert {"patterns.h", "lanes_tile.h"} <= {f.name for f in files}
    assert (tmp_path / "new" / "patterns.h").read_bytes() == (CPP / "patterns.h").read_bytes()
    if (cxx := shutil.which("c++")) is not None:
        command = [cxx, "-std=c++17", "-fsyntax-only", "-fopenmp", "patterns_0.cpp"]
        subprocess.run(command, cwd=tmp_path / "new", check=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    argv = "train digits --model resnet8 --model-kwargs width=0.5 --structure pattern:book=fixed4 --sparsity 0.7 --epochs 3"
    assert cli.main([*argv.split(), "--output", str(folder)]) == 0
    return folder


def test_a_run_is_compiled_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compile", str(run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["compiled"]["failed"] == []
    assert told["compiled"]["sources"] > 0
    assert told["compiled"]["library_bytes"] > 0
    assert cli.main(["compile", str(run), "--batch", "1"]) == 0
    assert "stride is 1, got 2" in capsys.readouterr().out


def test_a_folder_that_holds_something_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("mine")
    assert cli.main(["compile", str(run), "--emit", str(tmp_path)]) == 2
    assert "is not empty (mine)" in capsys.readouterr().err
    assert cli.main(["compile", str(run), "--emit", str(tmp_path / "mine")]) == 2
    assert cli.main(["compile", str(run), "--batch", "0"]) == 2
    assert cli.main(["compile", str(run), "--emit", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("patterns_*.cpp"))) > 0
