"""Measuring a run again, and masks that do not hold."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_runs import small

import campfire
from campfire import cli
from campfire.training import Result
from campfire.training.evaluation import correct


@pytest.fixture
def run(tmp_path: Path, trained: Result) -> Path:
    """A copy of a run, to be damaged."""
    for name in ("last.pt", "best.pt", "model.safetensors"):
        (tmp_path / name).write_bytes((trained.output / name).read_bytes())
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return campfire.train(small(model_ema=True, model_ema_decay=0.5), output=tmp_path_factory.mktemp("trained") / "run")


@pytest.mark.parametrize("file", ["", "last.pt", "best.pt", "model.safetensors"])
def test_eval_repeats_the_numbers_of_the_run(
    trained: Result, run: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["eval", str(run / file), "--json", "--threads", "1"]) == 0
    found = json.loads(capsys.readouterr().out)
    for key in ("top1", "top5", "sparsity_true", "sparsity_requested"):
        assert found[key] == trained.summary[key]
    assert found["violations"] == []


def test_other_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", str(run), "digits"]) == 0
    assert "masks hold" in capsys.readouterr().out
    assert cli.main(["eval", str(run), "synthetic"]) == 2
    assert "has the classes" in capsys.readouterr().err


def test_a_revived_weight_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = run / "model.safetensors"
    weights = load_file(file)
    name = "layer2.0.conv1.weight"
    weights[name][(weights[name] == 0).nonzero()[0].unbind()] = 1e-9
    save_file(weights, file)
    assert cli.main(["eval", str(file)]) == 4
    assert "layer 'layer2.0.conv1': 1 dead weights are not zero" in capsys.readouterr().out


def test_a_mask_of_another_structure_is_a_damaged_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = torch.load(run / "last.pt", weights_only=True)
    bits: Any = saved["pruner"]["layers"]["layer2.0.conv1"]["bits"]
    bits[0] ^= 1
    torch.save(saved, run / "last.pt")
    assert cli.main(["eval", str(run)]) == 1
    assert "layer 'layer2.0.conv1' of the pruner state is damaged" in capsys.readouterr().err


def test_load_gives_the_model_as_it_was_evaluated(trained: Result, run: Path) -> None:
    loaded = campfire.load_run(run)
    assert not loaded.model.training
    assert loaded.classes == [str(i) for i in range(10)]
    x = torch.randn(2, 1, loaded.image_size, loaded.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.model(x), trained.model.eval()(x))


def test_top_k_counts() -> None:
    logits, y = torch.tensor([[0.1, 0.9, 0.5], [0.7, 0.2, 0.6]]), torch.tensor([2, 0])
    assert [int(correct(logits, y, k)) for k in (1, 2, 5)] == [1, 2, 2]
