"""campfire cost: of models, runs and files, one by one and side by side."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from campfire import cli, models

TRAIN = [
    *("train", "synthetic:images=64,size=16", "--model", "resnet8", "--model-kwargs", "width=0.5", "-b", "16"),
    *("--epochs", "1", "--schedule", "oneshot", "--era-start", "0"),
]
QUICK = ["--size", "16", "--images", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs")
    for name in ("dense", "fine", "kernel"):
        assert cli.main([*TRAIN, "--structure", name, "--sparsity", "0.5", "--output", str(folder / name)]) == 0
    return {name: str(folder / name) for name in ("dense", "fine", "kernel")}


def found(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["cost", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_model_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    cost = found(capsys, "resnet8", *QUICK, "--structure", "kernel", "--sparsity", "0.75", "--value-bits", "8")
    one = next(r for r in cost["layers"] if r["name"] == "layer1.0.conv1")
    assert (one["grain"], one["living"], one["sparsity"]["kernel"]) == ("kernel", 16 * 16 * 9 // 4, 0.75)
    assert one["mao_ratio"] == pytest.approx(0.25 * 19 / 18)
    assert cost["all"]["activity"]["references_ratio"]["row_merge"] < 0.5
    assert cost["images_from"] == "noise"


def test_a_run_is_counted_on_its_images(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    cost = found(capsys, runs["fine"], "--images", "2", "--energy", "mac=1", "dram=0")
    summary = json.loads((Path(runs["fine"]) / "summary.json").read_text())
    assert cost["all"]["sparse_macs"] == summary["sparse_macs"]
    assert (cost["top1"], cost["images"]) == (summary["top1"], 2)
    activity = cost["all"]["activity"]
    assert activity["energy_pj"]["arithmetic"] == activity["references"]["products"]
    assert activity["energy_pj"]["memory"] == 0
    assert 0 < activity["activation_density"] < 1


def test_without_images_only_weights_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cost", "resnet8", "--size", "16", "--images", "0"]) == 0
    text = capsys.readouterr().out
    assert "act. %" not in text
    assert "layer3.0.downsample.0" in text


def test_a_state_dict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = models.create("resnet8", num_classes=10)
    with torch.no_grad():
        model.layer1[0].conv1.weight[3] = 0
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    cost = found(capsys, str(tmp_path / "weights.pt"), "--model", "resnet8", *QUICK)
    assert next(r for r in cost["layers"] if r["name"] == "layer1.0.conv1")["sparsity"]["filter"] == 1 / 16


def test_structures_at_equal_sparsity(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in ((runs["dense"], ["--images", "1"]), ("resnet8", QUICK)):
        cost = found(capsys, name, *size, "--compare", "fine,kernel", "--sparsity", "0.5")
        one, two = (row["convolutions"] for row in cost["rows"])
        assert one["living"] == two["living"]
        assert one["mao_ratio"] > two["mao_ratio"]
        assert one["activity"]["references"]["row_merge"] > two["activity"]["references"]["row_merge"]
        assert cost["equal_accuracy"] is None
    assert cli.main(["cost", "resnet8", *QUICK, "--compare", "fine,kernel"]) == 0
    assert "resnet8, kernel" in capsys.readouterr().out


def test_runs_at_equal_accuracy(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    both = [runs["fine"], runs["kernel"]]
    cost = found(capsys, "--compare", *both, "--images", "0", "--at", "0")
    at = cost["equal_accuracy"]["structures"]
    assert set(at) == {"fine", "kernel"}
    assert all(not x["exact"] for x in at.values())
    assert at["fine"]["costs"]["mao_ratio"] > at["kernel"]["costs"]["mao_ratio"]
    assert cli.main(["cost", *both, "--compare", "--images", "0", "--at", "101"]) == 0
    assert capsys.readouterr().out.count("never reaches it") == 2


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "give one model, run or file; got 0"),
        (["resnet8", "resnet20"], "several runs go with --compare"),
        (["--compare"], "two or more runs"),
        (["a", "b", "--compare"], "there is no run a"),
        (["resnet9"], "did you mean 'resnet8'"),
        (["resnet8", "--array", "0"], "--array is a number above 0"),
        (["resnet8", "--images", "-1"], "--images is a number of images"),
        (["resnet8", *QUICK, "--energy", "mca=1"], "did you mean 'mac'"),
        (["resnet8", *QUICK, "--structure", "ckk"], "did you mean 'ck'"),
        (["resnet8", *QUICK, "--sparsity", "0.5"], "--sparsity 0.5 prunes nothing without a structure"),
        (["--compare", ".", "..", "--sparsity", "0.5"], "--sparsity 0.5 prunes nothing without a structure"),
        (["--compare", ".", "..", "--structure", "ck"], "runs are compared as they are; leave --structure ck out"),
        (["resnet8", *QUICK, "--model-kwargs", "in_channels=x"], "in_channels must be a whole number"),
    ],
)
def test_what_is_refused(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cost", *argv]) == 2
    assert says in capsys.readouterr().err


def test_a_pruned_run_is_not_pruned_again(runs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cost", runs["fine"], "--compare", "kernel,vector"]) == 2
    assert "is pruned already (fine)" in capsys.readouterr().err


def test_weights_alone_are_no_run_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / f"{name}.pt") for name in "ab"]
    for file in files:
        torch.save(models.create("resnet8", num_classes=10).state_dict(), file)
    assert cli.main(["cost", "--compare", *files, "--model", "resnet8", *QUICK]) == 2
    said = capsys.readouterr().err
    assert f"campfire cost {files[0]} --model NAME" in said
    assert "--pretrained" not in said
    assert cli.main(["cost", files[0], "--model", "resnet8", *QUICK]) == 0


def test_a_structure_is_laid_on_dense_runs_and_refused_by_pruned_ones(
    runs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    cost = found(capsys, runs["dense"], "--images", "0", "--structure", "kernel", "--sparsity", "0.75")
    assert (cost["structure"], cost["top1"]) == ("kernel", None)
    assert next(r for r in cost["layers"] if r["name"] == "layer2.0.conv1")["sparsity"]["kernel"] == 0.75
    assert cli.main(["cost", runs["fine"], "--images", "0", "--structure", "kernel"]) == 2
    assert "is pruned already (fine), and 'kernel' is asked for" in capsys.readouterr().err
