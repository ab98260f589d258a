"""Names, distances, records and the library behind AutoAttack."""

import json
import pathlib
import sys

import pytest
import torch
from torch import nn

from campfire.attack import KNOWN, autoattack, named, right
from campfire.attack.distances import check_eps, read_eps
from campfire.attack.record import FORMAT, accuracy, merged, read, why_another, wilson
from campfire.errors import CheckpointError, DoesNotFit, UnknownName, UsageError

CIFAR = [3, 32, 32]


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0", 0.0), ("1e-2", 0.01), ("0.5", 0.5)])
def test_distances(text: str, value: float) -> None:
    assert read_eps(text) == value


@pytest.mark.parametrize("text", ["-1/255", "nan", "inf", "8/0", "8/", "eight", "1/2/3"])
def test_what_is_no_distance(text: str) -> None:
    with pytest.raises(UsageError, match="a distance from 0 up"):
        read_eps(text)


def test_levels_of_255_are_refused() -> None:
    with pytest.raises(UsageError, match=r"values lie in \[0, 1\]; in levels of a byte it is written 8/255"):
        check_eps(8.0, "linf", "pixel", [1.0] * 3, CIFAR)
    with pytest.raises(UsageError, match=r"normalised, values span 4.37, 4.46, 4.44.*written 8/255"):
        check_eps(8.0, "linf", "normalised", [4.366, 4.464, 4.444], CIFAR)
    with pytest.raises(UsageError, match="more than any two images differ by in l2"):
        check_eps(128.0, "l2", "pixel", [1.0] * 3, CIFAR)


@pytest.mark.parametrize(
    ("eps", "norm", "remark"),
    [
        (8 / 255, "linf", None), (0.0, "linf", None), (0.5, "l2", None), (3.0, "l2", None), (0.5, "linf", "a grey one"),
        (8 / 255, "l2", "is that meant"), (20.0, "l2", "is that meant"), (0.0, "l2", None),
    ],
)  # fmt: skip
def test_odd_distances_are_remarked(eps: float, norm: str, remark: str | None) -> None:
    found = check_eps(eps, norm, "pixel", [1.0] * 3, CIFAR)
    assert found is None if remark is None else remark in str(found)


def test_unknown_names_are_suggested() -> None:
    for options, near in (
        ({"name": "fgms"}, "fgsm"),
        ({"name": "pgd", "norm": "l_inf"}, "linf"),
        ({"name": "auto-attack"}, "autoattack"),
    ):
        with pytest.raises(UnknownName, match=f"did you mean '{near}'"):
            named(**options)
    for wrong in ({"steps": 0}, {"restarts": 0}, {"step_size": 0.0}):
        with pytest.raises(UsageError, match="steps >= 1"):
            named("pgd", **wrong)


def test_facts_say_what_an_attack_has() -> None:
    facts = named("pgd", steps=5).facts(0.1)
    assert (facts["step_size"], facts["steps"], facts["start"]) == (0.05, 5, "random")
    facts = named("fgsm", steps=5, restarts=7).facts(0.1)
    assert (facts["step_size"], facts["steps"], facts["restarts"], facts["start"]) == (0.1, 1, 1, None)
    assert named("square").facts(0.1)["steps"] is None


@pytest.mark.parametrize(
    ("correct", "images", "low", "high"),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18)],
)
def test_wilson(correct: int, images: int, low: float, high: float) -> None:
    assert wilson(correct, images) == pytest.approx((low, high), abs=0.006)


def record(*eps: float, **facts: str) -> dict:
    results = [{**named("fgsm").facts(e), "space": "pixel", **accuracy(5, 10)} for e in eps]
    same = {"weights": "w", "sample": "s", "fingerprint": "f", "compressed": False}
    return {"format": FORMAT, **same, **facts, "clean": accuracy(7, 10), "results": results}


def test_records_are_read_and_merged(tmp_path: pathlib.Path) -> None:
    assert read(tmp_path) is None
    (tmp_path / "attack.json").write_text(json.dumps(record(0.1)))
    old = read(tmp_path)
    assert old is not None
    assert old == read(tmp_path / "attack.json")
    assert [r["eps"] for r in merged(old, record(0.2, 0.1))["results"]] == [0.2, 0.1]
    assert [r["eps"] for r in merged(old, record(0.2))["results"]] == [0.1, 0.2]
    assert why_another(old, record(0.2)) == []
    assert why_another(old, record(weights="x", sample="y")) == ["other weights", "other images"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "campfire-attack-1"}', '{"format": "another"}'])
def test_other_files_are_refused(tmp_path: pathlib.Path, text: str) -> None:
    (tmp_path / "attack.json").write_text(text)
    with pytest.raises(CheckpointError, match="no record of attacks"):
        read(tmp_path)


def linear(classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes)).eval()


@pytest.mark.parametrize(("part", "norm"), [("apgd-ce", "linf"), ("apgd-dlr", "l2"), ("apgd-t", "linf")])
def test_parts_of_autoattack(part: str, norm: str) -> None:
    pytest.importorskip("pyautoattack", reason="the attack extra is not installed")
    model, x = linear(5), torch.rand(6, 3, 4, 4)
    y, eps = model(x).argmax(1), 0.05 if norm == "linf" else 0.3
    moved = autoattack(model, x, y, eps, norm=norm, part=part)
    change = (moved - x).flatten(1)
    assert (change.abs().amax(1) if norm == "linf" else change.norm(dim=1)).max() <= eps + 1e-6
    assert not right(model, moved, y).all()
    assert torch.equal(moved, autoattack(model, x, y, eps, norm=norm, part=part))


def test_autoattack_wants_classes_and_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(2, 3, 4, 4)
    with pytest.raises(DoesNotFit, match="compares 4 classes; there are 3"):
        autoattack(linear(3), x, torch.zeros(2, dtype=torch.long), 0.1)
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(UsageError, match=r"pip install 'campfire-sparse\[attack\]'"):
        autoattack(linear(5), x, torch.zeros(2, dtype=torch.long), 0.1)
    assert "autoattack" in KNOWN
