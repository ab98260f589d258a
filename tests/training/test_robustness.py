"""Attacks on runs: the same images for all, clean accuracy as evaluated, and what is refused."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from training_runs import small

import campfire
from campfire import cli
from campfire.attack import Attack, fgsm, library, named
from campfire.errors import UsageError
from campfire.training.robustness import Trial, robustness

EPS = "0,2/255,16/255"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense run, a sparse one of the same images, and one of others."""
    folder = tmp_path_factory.mktemp("runs")
    settings: dict[str, Any] = {"epochs": 4, "model_kwargs": {"width": 0.5}, "lr": 0.05}
    campfire.train(small(structure="dense", **settings), output=folder / "dense")
    campfire.train(small(structure="ck", sparsity=0.5, **settings, amp=True), output=folder / "ck")
    other = {"data": "synthetic:images=64,classes=10,size=16,channels=1", "epochs": 1, "structure": "dense"}
    campfire.train(small(**other, batch_size=32), output=folder / "other")
    return folder


def attack(runs: Path, *argv: str, names: Sequence[str] = ("dense", "ck")) -> int:
    return cli.main(["attack", *(str(runs / name) for name in names), "--threads", "1", *argv])


@pytest.fixture(scope="module")
def attacked(runs: Path) -> list[dict[str, Any]]:
    """Both runs after FGSM and PGD on all test images, as the run directories have it."""
    assert attack(runs, "--attack", "fgsm,pgd", "--eps", EPS, "--steps", "3", "--num-examples", "all") == 0
    return [json.loads((runs / name / "attack.json").read_text()) for name in ("dense", "ck")]


def test_clean_accuracy_is_the_runs_own(runs: Path, attacked: list[dict[str, Any]]) -> None:
    for name, record in zip(("dense", "ck"), attacked, strict=True):
        top1 = json.loads((runs / name / "summary.json").read_text())["top1"]
        assert record["clean"]["top1"] == top1
        assert [r["top1"] for r in record["results"] if r["eps"] == 0] == [top1, top1]
        assert record["images"] == record["clean"]["images"] == 360


def test_records_say_what_was_attacked(attacked: list[dict[str, Any]]) -> None:
    dense, sparse = attacked
    assert (dense["structure"], dense["sparsity_true"], sparse["structure"]) == ("dense", 0.0, "ck")
    assert 0.4 < sparse["sparsity_true"] <= 0.5
    assert (dense["sample"], dense["fingerprint"]) == (sparse["sample"], sparse["fingerprint"])
    assert dense["weights"] != sparse["weights"]


def test_stronger_attacks_leave_less(attacked: list[dict[str, Any]]) -> None:
    for record in attacked:
        fgsm, pgd = ([r["correct"] for r in record["results"] if r["attack"] == a] for a in ("fgsm", "pgd"))
        assert fgsm[0] > fgsm[1] > fgsm[2]
        assert pgd[2] <= fgsm[2]
        for result in record["results"]:
            assert result["low"] <= result["top1"] <= result["high"]


def test_what_was_wrong_stays_wrong(runs: Path) -> None:
    class Helps(Attack):
        def __call__(self, model: Any, x: Any, y: Any, eps: float, box: Any, keys: Any) -> torch.Tensor:
            return fgsm(model, x, y, -eps, box=box)

    (record,) = robustness([runs / "dense"], [Helps("pgd")], [8 / 255], num_examples=None, threads=1)
    assert record["results"][0]["correct"] == record["clean"]["correct"] < 360


def test_a_table_for_people(runs: Path, attacked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert attack(runs, "--eps", "2/255", "--num-examples", "all") == 0
    out = capsys.readouterr().out
    assert "360 test images of digits (seed 0)" in out
    assert "fgsm linf 2/255" in out
    assert "ck, 0." in out
    assert len(json.loads((runs / "ck" / "attack.json").read_text())["results"]) == 6  # merged


def test_a_sample_is_drawn_by_its_seed(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for i, seed in enumerate(("1", "1", "2")):
        output = tmp_path / f"{i}.json"
        argv = ["--num-examples", "60", "--seed", seed, "--eps", "2/255", "--attack", "pgd", "--steps", "2", "--json"]
        assert attack(runs, *argv, "-o", str(output)) == 0
        printed = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert printed == json.loads(output.read_text())
        found.append([(r["sample"], r["clean"], r["results"][0]["correct"], r["images"]) for r in printed["runs"]])
    assert found[0] == found[1]
    assert found[0][0][0] == found[0][1][0] != found[2][0][0]
    assert found[0][0][3] == 60


def test_normalised_is_pixel_over_the_deviation(runs: Path) -> None:
    """Grey images have one deviation: eps in its units is the same attack, rounded otherwise."""
    std = campfire.load_run(runs / "dense").std[0]
    options: dict[str, Any] = {"num_examples": None, "threads": 1}
    (pixel,) = robustness([runs / "dense"], [named("fgsm")], [8 / 255], **options)
    (normal,) = robustness([runs / "dense"], [named("fgsm")], [8 / 255 / std], space="normalised", **options)
    assert normal["clean"] == pixel["clean"]
    assert abs(normal["results"][0]["correct"] - pixel["results"][0]["correct"]) <= 2


def test_compressed_networks_are_attacked_through_their_kernels(runs: Path, attacked: list[dict[str, Any]]) -> None:
    options: dict[str, Any] = {"num_examples": None, "threads": 1, "compress": True}
    dense, record = robustness([runs / "dense", runs / "ck"], [named("fgsm")], [2 / 255], **options)
    masked = attacked[1]
    assert (dense["compressed"], dense["clean"]) == (False, attacked[0]["clean"])
    assert (record["compressed"], record["weights"]) == (True, masked["weights"])
    assert abs(record["clean"]["correct"] - masked["clean"]["correct"]) <= 3  # sums in another order, in bfloat16
    assert abs(record["results"][0]["correct"] - masked["results"][1]["correct"]) <= 6


def test_parts_of_autoattack_on_a_run(runs: Path) -> None:
    pytest.importorskip("pyautoattack", reason="the attack extra is not installed")
    (record,) = robustness([runs / "dense"], [named("apgd-ce")], [8 / 255], num_examples=24, threads=1)
    assert record["results"][0]["correct"] < record["clean"]["correct"]
    assert record["results"][0]["step_size"] is None


def damaged(runs: Path, folder: Path, **facts: Any) -> Path:
    """A copy of the dense run whose checkpoint says other things of its images; None leaves one out."""
    saved = torch.load(runs / "dense" / "last.pt", weights_only=True)
    saved["images"] = {k: v for k, v in (saved["images"] | facts).items() if v is not None}
    torch.save(saved, folder / "last.pt")
    return folder


def test_without_its_normalisation_nothing_is_attacked(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for facts, message, code in (
        ({"mean": None}, "does not know mean of its images", 1),
        ({"std": (0.0,)}, "without it an attack in pixels is impossible", 2),
        ({"mean": (0.1, 0.2, 0.3)}, "was trained on 1 channels, and its normalisation is mean [0.1, 0.2, 0.3]", 2),
    ):
        assert cli.main(["attack", str(damaged(runs, tmp_path, **facts))]) == code
        assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--eps", "8"], "in levels of a byte it is written 8/255"),
        (["--eps", "-0.1"], "a distance from 0 up"),
        (["--eps", ","], "wanted an attack and a distance at least, such as 8/255; got 1 and 0"),
        (["--norm", "l2"], "--eps is needed with this norm"),
        (["--norm", "l2", "--eps", "100"], "more than any two images differ by in l2"),
        (["--attack", "fgms"], "did you mean 'fgsm'"),
        (["--attack", ","], "names no attack"),
        (["--attack", "pgd", "--steps", "0"], "steps >= 1"),
        (["--space", "pixels"], "did you mean 'pixel'"),
        (["--space", "normalised", "--attack", "fgsm,autoattack"], "autoattack moves images in [0, 1] only"),
        (["--num-examples", "0"], "is 1 or more"),
        (["--num-examples", "some"], "a number or all"),
        (["--output", "nowhere/there.json"], "give another --output"),
    ],
)
def test_bad_requests(runs: Path, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack(runs, *argv) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_runs_of_other_images_are_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert attack(runs, names=["dense", "other"]) == 2
    assert "not the same images" in capsys.readouterr().err
    assert attack(runs, "--compress", names=["dense"]) == 2
    assert "nothing is pruned here" in " ".join(capsys.readouterr().err.split())
    assert attack(runs, "--data", "synthetic:classes=7,images=70") == 2
    assert "other classes" in capsys.readouterr().err


def test_other_images_of_the_same_classes_are_another_record(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(40):
        file = tmp_path / "pictures" / ("train", "val")[i % 2] / str(i // 4) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (32, 32), 6 * i).save(file)
    other = ["--data", str(tmp_path / "pictures")]
    assert attack(run.parent, "--eps", "2/255", names=[run.name]) == 0
    assert attack(run.parent, "--eps", "8/255", *other, names=[run.name]) == 2
    assert "another data set" in capsys.readouterr().err
    assert len(results(run)) == 1
    assert attack(run.parent, "--eps", "8/255", *other, "--overwrite", names=[run.name]) == 0
    assert json.loads((run / "attack.json").read_text())["data"] == "pictures"


@pytest.fixture
def run(runs: Path, tmp_path: Path) -> Path:
    """A copy of the dense run that nobody has attacked."""
    copy = Path(shutil.copytree(runs / "dense", tmp_path / "run"))
    (copy / "attack.json").unlink(missing_ok=True)
    return copy


def results(run: Path) -> list[float]:
    return [result["eps"] for result in json.loads((run / "attack.json").read_text())["results"]]


def test_two_attacks_at_once_lose_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Trial.record
    argv = ["attack", str(run), "--threads", "1", "--num-examples", "20", "--eps"]

    def meanwhile(self: Trial) -> dict[str, Any]:
        monkeypatch.setattr(Trial, "record", record)
        assert cli.main([*argv, "0.2"]) == 0  # the other one, which is quicker
        return record(self)

    monkeypatch.setattr(Trial, "record", meanwhile)
    assert cli.main([*argv, "0.1"]) == 0
    assert results(run) == [0.2, 0.1]
    assert cli.main([*argv, "0.3", "--overwrite"]) == 0  # replaces what is of other images or weights only
    assert results(run) == [0.2, 0.1, 0.3]


def test_the_record_of_a_run_is_no_output(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = run / "attack.json"
    assert cli.main(["attack", str(run), "--threads", "1", "--num-examples", "20", "-o", str(output)]) == 2
    assert "attack.json is a file of the run" in " ".join(capsys.readouterr().err.split())
    assert not output.exists()


def test_what_the_library_cannot_do_is_said_first(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise UsageError("AutoAttack is not installed")

    monkeypatch.setattr(library, "_load", missing)
    monkeypatch.setattr(Trial, "record", lambda self: pytest.fail("it was attacked"))
    assert attack(runs, "--attack", "fgsm,square") == 2
    assert "AutoAttack is not installed" in capsys.readouterr().err


def test_the_record_of_a_run_is_of_its_last_weights(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["attack", str(run / "best.pt"), "--threads", "1", "--num-examples", "20", "--eps", "0"]
    (run / "best.pt").write_bytes((run / "last.pt").read_bytes())
    assert cli.main(argv) == 2
    assert "is of the run's last weights; results on others need --output" in " ".join(capsys.readouterr().err.split())
    assert cli.main([*argv, "--output", str(run.parent / "best.json")]) == 0
    assert not (run / "attack.json").exists()


def test_steps_of_another_length_are_another_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["attack", str(run), "--threads", "1", "--num-examples", "20", "--attack", "pgd", "--steps", "2"]
    assert cli.main([*argv, "--eps", "8/255"]) == 0
    assert cli.main([*argv, "--eps", "8/255", "--step-size", "1e-6", "--start", "image"]) == 0
    shown = capsys.readouterr().out.rpartition("clean")[2]
    assert "pgd 2x1 linf 8/255 " in shown
    assert "pgd 2x1 of 1e-06 from image linf 8/255 " in shown


def test_results_on_other_images_are_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["attack", str(run), "--threads", "1", "--eps", "2/255", "--num-examples"]
    assert cli.main([*argv, "50"]) == 0
    assert cli.main([*argv, "40"]) == 2
    assert "has results on other images; give --overwrite" in " ".join(capsys.readouterr().err.split())
    assert cli.main([*argv, "40", "--overwrite"]) == 0
    assert json.loads((run / "attack.json").read_text())["images"] == 40
    assert cli.main(["attack", str(run), str(run / "last.pt"), "--eps", "0"]) == 2
    assert "give --output FILE" in capsys.readouterr().err
