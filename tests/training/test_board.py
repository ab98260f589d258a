"""TensorBoard sees every epoch once, whatever happens to the run; without its package the run does not begin."""

import importlib.util
from pathlib import Path

import pytest

import campfire
from campfire.errors import CampfireError
from campfire.training.board import TAGS
from campfire.training.run_directory import RunDirectory

SMALL = {"data": "synthetic:images=32,size=8", "model": "resnet8", "batch_size": 16, "sparsity": 0.5, "threads": 1}
needs_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(run / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}


@needs_tensorboard
def test_every_epoch_is_there_once_after_a_resume_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    campfire.train(output=run, epochs=3, tensorboard=True, **SMALL)
    assert scalars(run)["training/learning rate"][0][0] == 1
    result = campfire.train(output=run, epochs=4, resume="auto", allow_config_change=True, tensorboard=True, **SMALL)
    found = scalars(run)
    assert set(found) == set(TAGS.values())
    assert {tuple(step for step, _ in values) for values in found.values()} == {(1, 2, 3, 4)}
    assert found["accuracy/top-1"][-1][1] == pytest.approx(result.top1)
    RunDirectory(run).clear()
    assert not list(run.rglob("events.*"))


def test_without_its_package_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CampfireError, match=r"pip install 'campfire-sparse\[tensorboard\]'"):
        campfire.train(output=tmp_path / "run", tensorboard=True, **SMALL)
    assert not (tmp_path / "run").exists()
