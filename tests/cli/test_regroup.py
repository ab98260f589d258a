import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from campfire.cli import main
from campfire.models import create


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    assert main(["regroup", *argv, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)["rows"]


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    torch.manual_seed(0)
    state = create("resnet8", num_classes=10, width=2).state_dict()
    torch.save(state, tmp_path / "dense.pt")
    return tmp_path / "dense.pt", state


def test_a_plain_checkpoint(weights: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = told(capsys, str(weights[0]), "--structure", "hrbp", "--block", "32x1", "--sparsity", "0.8")
    assert row["structure"] == "hrbp:channels=1"
    assert row["sparsity_true"] == pytest.approx(0.8, abs=0.01)
    share = row["share"]
    assert share["vector"] > share["kernel"] > share["blocks"] > share["unregrouped"] > 0.2
    assert "conv1" not in [layer["name"] for layer in row["layers"]]
    one = next(layer for layer in row["layers"] if layer["name"] == "layer2.0.conv1")
    assert one["kept"] == 9 * 32 * round(0.2 * 2 * 32)
    assert one["dead_kernels"] == 64 * 32 - one["kept"] // 9
    assert one["inside"] == one["kept"]
    assert row["speed"]["forward"] > 1


def test_the_same_by_model_and_from_safetensors(
    weights: tuple[Path, dict[str, Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(weights[1], tmp_path / "dense.safetensors")
    plain = told(capsys, str(weights[0]), "--sparsity", "0.8")
    assert sorted(x["name"] for x in plain[0]["layers"]) == sorted(
        x["name"] for x in told(capsys, str(tmp_path / "dense.safetensors"), "--sparsity", "0.8")[0]["layers"]
    )
    named = ["--model", "resnet8", "--model-kwargs", "width=2"]
    again = told(capsys, str(weights[0]), *named, "--sparsity", "0.8")
    assert again[0]["share"] == plain[0]["share"]
    assert [x["name"] for x in again[0]["layers"]] == [x["name"] for x in plain[0]["layers"]]


def test_an_unstructured_checkpoint_keeps_its_own_sparsity(
    weights: tuple[Path, dict[str, Tensor]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = weights
    for name, x in state.items():
        if x.dim() == 4:
            state[name] = x * (x.abs() >= x.abs().flatten().kthvalue(int(0.75 * x.numel())).values)
    torch.save({"state_dict": state}, path)
    row = told(capsys, str(path), "--structure", "hrbp++")[0]
    assert row["sparsity_true"] == pytest.approx(0.75, abs=0.01)
    assert row["share"]["unstructured_of_all"] == pytest.approx(1, abs=0.01)
    assert 0.25 < row["density_inside"] < 1  # more than chance, and zeros come back


def test_a_table_of_structures_blocks_and_sparsities(
    weights: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = told(capsys, str(weights[0]), "--structure", "hrbp++,hrbp", "--block", "16x1,32x2", "--sparsity", "0.7,0.9")
    assert [x["structure"] for x in rows[::2]] == [
        "hrbp++:rows=16", "hrbp++:channels=2", "hrbp:rows=16,channels=1", "hrbp:channels=2"
    ]  # fmt: skip
    assert [x["sparsity_requested"] for x in rows] == [0.7, 0.9] * 4
    assert main(["regroup", str(weights[0]), "--structure", "hrbp++,hrbp", "--sparsity", "0.7"]) == 0
    assert capsys.readouterr().out.count("\n") == 6
    assert main(["regroup", str(weights[0]), "--structure", "hrbp:order=cluster", "--sparsity", "0.7"]) == 0
    out = capsys.readouterr().out
    assert "hrbp:order=cluster, blocks of 32 x 4" in out
    assert "layer3.0.conv2" in out
    assert "all of these" in out


def test_layers_too_small_are_listed(
    weights: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["regroup", str(weights[0]), "--block", "64x4", "--sparsity", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "layer1.0.conv1 stays dense: 32 x 32 is smaller than a block of 64 outputs x 4 inputs" in out


def test_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run")
    flags = ["--epochs", "2", "--structure", "fine", "--sparsity", "0.75", "--img-size", "16", "-b", "256"]
    assert main(["train", "digits", "--model", "resnet8", "--output", run, *flags]) == 0
    capsys.readouterr()
    row = told(capsys, run, "--block", "16x1")[0]
    assert row["sparsity_true"] == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--block", "32"], "--block is outputs x inputs, such as 32x1; got '32'"),
        (["--sparsity", "much"], "a fraction of zeros, or several by commas"),
        (["--sparsity", "1.5"], r"in \[0, 1\); got 1.5"),
        (["--structure", "ck", "--sparsity", "0.5"], "hrbp and hrbp"),
        ([], "no weight is zero"),
        (["--block", "512x1", "--sparsity", "0.5"], "smaller than a block"),
    ],
)
def test_mistakes(
    argv: list[str], says: str, weights: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["regroup", str(weights[0]), *argv]) == 2
    assert re.search(says, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("shapes", "left"),
    [
        ({"a": (8, 3, 3, 3), "b": (16, 8, 3, 3)}, ["b"]),
        ({"a": (8, 1, 3, 3), "b": (16, 8, 3, 3), "c": (16, 16, 3, 3)}, ["b", "c"]),  # grey images
        ({"a": (8, 3, 3, 3), "deep": (8, 1, 3, 3), "b": (16, 8, 1, 1)}, ["b"]),
        ({"z": (8, 1, 3, 3), "deep": (8, 1, 3, 3), "b": (16, 8, 1, 1), "c": (16, 16, 1, 1)}, ["c"]),  # a guess
    ],
)
def test_the_first_convolution_is_told_by_its_inputs(
    shapes: dict[str, tuple[int, ...]], left: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({f"{n}.weight": torch.randn(s) for n, s in shapes.items()}, tmp_path / "w.pt")
    row = told(capsys, str(tmp_path / "w.pt"), "--block", "8x2", "--sparsity", "0.5")[0]
    assert [x["name"] for x in row["layers"]] == left


def test_how_groups_lie_backward(weights: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks of whole kernels have one support; single weights of the same budget shatter."""
    argv = [str(weights[0]), "--block", "32x1", "--sparsity", "0.8", "--elementwise"]
    row = told(capsys, *argv)[0]
    for x in [row, *(x for x in row["layers"] if x.get("supports"))]:
        blocks, single = x["supports"]["blocks"], x["supports"]["elementwise"]
        assert (blocks["sets_of_taps"], blocks["density"]) == (1, 1)
        assert single["inputs"] > 2 * blocks["inputs"]
        assert single["sets_of_taps"] > 5
        assert single["density"] < 0.5
        assert x["share"]["elementwise"] > x["share"]["blocks"]
    assert sorted(x["name"] for x in row["layers"] if not x.get("supports")) == [
        "layer2.0.downsample.0", "layer3.0.downsample.0"
    ]  # fmt: skip
    assert main(["regroup", *argv]) == 0
    out = capsys.readouterr().out
    assert "backward, blocks: " in out
    assert " in 1.0 sets of taps, 1.00 of their box" in out
    taps = told(capsys, *argv[:1], "--structure", "hrbp++", *argv[1:])[0]["supports"]["blocks"]
    assert taps["sets_of_taps"] > 1  # each block of one input has taps of its own


def test_blocks_that_do_not_divide_are_told(
    weights: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["regroup", str(weights[0]), "--block", "24x4", "--sparsity", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "layer1.0.conv1: 32 outputs are 1 x 24 and 8 left over, which make smaller blocks" in out
    assert "no block kernel" in out


def test_files_that_hold_nothing_to_regroup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["regroup", str(tmp_path / "none.pt"), "--sparsity", "0.5"]) == 2
    torch.save({"fc.weight": torch.zeros(3, 4)}, tmp_path / "linear.pt")
    assert main(["regroup", str(tmp_path / "linear.pt"), "--sparsity", "0.5"]) == 1
    assert "holds 0 convolutions" in capsys.readouterr().err
    torch.save(
        {"a.weight": torch.ones(8, 3, 3, 3), "b.weight": torch.full((32, 8, 3, 3), torch.nan)}, tmp_path / "nan.pt"
    )
    assert main(["regroup", str(tmp_path / "nan.pt"), "--sparsity", "0.5"]) == 1
    assert "the weights of b hold NaN or infinity" in capsys.readouterr().err


def test_layers_that_may_be_grouped_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As in ResNeXt, whose 3x3 layers have 32 groups, here 16; a downsample layer reads what the stem made, not the layer before."""
    names = ("stem", "conv1", "conv2", "conv3", "downsample")
    shapes = ((16, 3, 3, 3), (64, 16, 1, 1), (64, 4, 3, 3), (128, 64, 1, 1), (128, 16, 1, 1))
    state = {f"{n}.weight": torch.randn(s) for n, s in zip(names, shapes, strict=True)}
    torch.save(state, tmp_path / "grouped.pt")
    argv = ["regroup", str(tmp_path / "grouped.pt"), "--block", "8x2", "--sparsity", "0.5", "--json"]
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "conv2 may be grouped" in err
    assert "--model NAME" in err
    assert len(json.loads(out)["rows"][0]["layers"]) == 4
    state["conv2.weight"] = torch.randn(64, 64, 3, 3)
    torch.save(state, tmp_path / "grouped.pt")
    assert main(argv) == 0
    assert not capsys.readouterr().err
