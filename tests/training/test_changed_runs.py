"""Runs that go on with other options than before, and directories that are not what --resume takes them for."""

from pathlib import Path
from typing import Any

import pytest
from training_runs import small

import campfire
from campfire.errors import CheckpointError, UsageError


def go_on(run: Path, **flags: Any) -> Any:
    return campfire.train(small(**flags), output=run, resume="auto", allow_config_change=True)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two epochs of a pruned run, of the four that its era is made for."""
    campfire.train(small(epochs=2, schedule="oneshot"), output=tmp_path / "run")
    return tmp_path / "run"


def test_a_finished_run_without_checkpoints_is_kept(run: Path) -> None:
    for name in ("last.pt", "previous.pt"):
        (run / name).unlink()
    before = (run / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"a finished run \(model.safetensors, summary.json\) without a checkpoint"):
        campfire.train(small(epochs=1, structure="dense"), output=run, resume="auto")
    assert (run / "model.safetensors").read_bytes() == before
    campfire.train(small(epochs=1, structure="dense"), output=run, resume="auto", overwrite=True)
    assert (run / "model.safetensors").read_bytes() != before


def test_the_state_of_one_optimizer_is_none_of_another(run: Path) -> None:
    before = (run / "last.pt").read_bytes()
    with pytest.raises(CheckpointError, match="was trained by sgd, whose state is none of adam; go on with --opt sgd"):
        go_on(run, epochs=3, schedule="oneshot", opt="adam")
    assert (run / "last.pt").read_bytes() == before


def test_an_average_may_begin_late(run: Path) -> None:
    assert go_on(run, epochs=3, schedule="oneshot", model_ema=True).summary["epochs"] == 3


def test_what_cannot_change_is_named(run: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"(?s)Give these as they were: .*pruning.era_start is 2.0 here and 1.0 in"
    ):
        go_on(run, epochs=5, schedule="oneshot", era_start=2)


def test_options_in_tuples_are_those_in_lists(tmp_path: Path) -> None:
    options = {"mean": (0.5,), "std": (0.25,)}
    campfire.train(small(epochs=1, structure="dense"), data_options=options, output=tmp_path / "run")
    again = campfire.train(
        small(epochs=1, structure="dense"), data_options=options, output=tmp_path / "run", resume="auto"
    )
    assert again.summary["epochs"] == 1


def test_a_page_of_the_run_that_was_replaced_goes_with_it(run: Path) -> None:
    (run / "report.html").write_text("of the run before")
    campfire.train(small(epochs=1, structure="dense"), output=run, overwrite=True)
    assert not (run / "report.html").exists()
