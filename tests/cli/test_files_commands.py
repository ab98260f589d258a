"""campfire compress, decompress, import and inspect."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import prune

import campfire
from campfire.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run, pruned."""
    out = tmp_path_factory.mktemp("run") / "run"
    config: dict[str, Any] = {"data": "synthetic:images=32,size=16", "model": "resnet8", "structure": "ck"}
    campfire.train(**config, sparsity=0.7, model_kwargs={"width": 0.5}, epochs=3, batch_size=16, output=out)
    return out


@pytest.fixture
def pruned_file(tmp_path: Path) -> Path:
    """A checkpoint with masks of torch.nn.utils.prune."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 3))
    prune.ln_structured(model[1], "weight", 0.5, n=2, dim=0)
    torch.save(model.state_dict(), tmp_path / "pruned.pt")
    return tmp_path / "pruned.pt"


def ask(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_there_and_back(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed, dense = tmp_path / "x.campfire", tmp_path / "x.safetensors"
    found = ask(capsys, "compress", str(run), "--output", str(packed))
    assert found["total"] == packed.stat().st_size
    assert ask(capsys, "decompress", str(packed), "--output", str(dense))["bytes"] == dense.stat().st_size
    state, wanted = campfire.load(packed), campfire.load_run(run).model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())
    layers = {x["name"]: x for x in ask(capsys, "inspect", str(packed))["layers"]}
    again = {x["name"]: x for x in ask(capsys, "inspect", str(dense))["layers"]}
    of_run = {x["name"]: x for x in ask(capsys, "inspect", str(run / "last.pt"))["layers"]}
    assert layers["layer1.0.conv1.weight"]["structure"] == "kernel"
    assert layers["layer1.0.conv1.weight"]["claimed"] == of_run["layer1.0.conv1.weight"]["claimed"] == "ck"
    assert again["layer1.0.conv1.weight"]["parts"] == layers["layer1.0.conv1.weight"]["parts"]
    assert layers["conv1.weight"]["structure"] == "dense"


def test_import(pruned_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.campfire"
    found = ask(capsys, "import", str(pruned_file), "--output", str(out))
    assert [x["structure"] for x in found["layers"]] == ["dense", "filter"]
    assert main(["inspect", str(out)]) == 0
    assert "filter" in capsys.readouterr().out
    assert main(["import", str(out), "--output", str(tmp_path / "y")]) == 2
    assert "is packed already" in capsys.readouterr().err


def test_values_in_few_bits(pruned_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.campfire"
    found = ask(capsys, "compress", str(pruned_file), "--output", str(out), "--values", "codebook:4")
    assert found["layers"][0]["parts"]["value"] == 16 * 16 * 9 // 2


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        (["compress", "nowhere", "--output", "x"], 2, "there is no file nowhere"),
        (["compress", "bad.pt", "--output", "x"], 1, "cannot read bad.pt"),
        (["decompress", "bad.pt", "--output", "x.pt"], 2, "bad.pt is not packed"),
        (["decompress", "bad.campfire", "--output", "x.pt"], 1, "cannot read bad.campfire"),
        (["decompress", "bad.pt", "--output", "x.onnx"], 2, "--output ends in .pt, .pth, .safetensors"),
        (["inspect", "bad.pt"], 1, "cannot read bad.pt"),
        (["compress", "good.pt", "--output", "no/x"], 2, "there is no folder no"),
        (["compress", "good.pt", "--output", "good.pt"], 2, "good.pt is the file that is read; give another one"),
        (
            ["compress", "good.pt", "--output", "run/last.pt"],
            2,
            "run/last.pt is a file of the run run; give another one",
        ),
        (["import", "good.pt", "--output", "run/best.pt"], 2, "is a file of the run run"),
        (["import", "run", "--output", "x"], 2, "run is a folder; a run is packed by `campfire compress`"),
        (["decompress", "run", "--output", "x.pt"], 2, "dense weights are its model.safetensors"),
        (["decompress", "good.pt", "--output", "x.pt"], 2, "good.pt is not packed; `campfire compress` packs it"),
        (["import", "whole.pt", "--output", "x"], 1, "holds an object of torch.nn.modules.linear.Linear"),
        (["cost", "good.pt"], 2, "good.pt holds weights, and not whose: give --model NAME"),
        (["cost", "good.safetensors"], 2, "give --model NAME"),
        (["export", "good.pt", "--output", "x.onnx"], 2, "give --model NAME"),
        (["export", "good.pt", "--model", "resnet8", "--format", "dense", "-o", "good.pt"], 2, "the file that is read"),
        (["compress", "good.pt"], 2, "--output"),
    ],
)
def test_what_goes_wrong(
    argv: list[str],
    code: int,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bad.pt", "bad.campfire"):
        Path(name).write_bytes(b"PK\x03\x04 half of it")
    torch.save({"w": torch.eye(32)}, "good.pt")
    save_file({"w": torch.eye(32)}, "good.safetensors")
    torch.save(nn.Linear(2, 2), "whole.pt")
    Path("run").mkdir()
    for name in ("config.yaml", "last.pt", "best.pt"):
        Path("run", name).touch()
    assert main(argv) == code
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
    assert not Path("x").exists()
    assert not any(path.stat().st_size for path in Path("run").iterdir())


def test_a_file_without_zeros(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"w": torch.ones(32, 32)}, tmp_path / "dense.pt")
    assert main(["compress", str(tmp_path / "dense.pt"), "-o", str(tmp_path / "x.campfire")]) == 0
    assert "no weight has zeros enough to be packed; 4,096 bytes of tensors" in capsys.readouterr().out


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (3, 128)])
def test_a_file_says_its_logits_channels_and_stem(
    channels: int, size: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = campfire.models.create("resnet18", num_classes=7, in_channels=channels, small_input=size != 32)
    prune.l1_unstructured(model.layer1[0].conv1, "weight", 0.75)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth.tar")
    found = ask(
        capsys, "cost", str(tmp_path / "w.pth.tar"), "--model", "resnet18", "--size", str(size), "--images", "0"
    )
    assert next(x for x in found["layers"] if x["name"] == "layer1.0.conv1")["sparsity"]["fine"] == 0.75


def test_the_c_program_is_three_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--size", "16", "--model-kwargs", "width=0.25", "num_classes=3"]
    assert main(["export", "resnet8", *small, "--format", "c", "-o", str(tmp_path / "net.c")]) == 0
    out = capsys.readouterr().out
    size = (tmp_path / "net.bin").stat().st_size
    assert f"with {tmp_path}/net.h, and {size:,} bytes of weights: {tmp_path}/net.bin" in out
