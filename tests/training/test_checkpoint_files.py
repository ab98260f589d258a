"""Files that are not what they should be, and files that are written whole."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import small

import campfire
from campfire.errors import CheckpointError, UsageError
from campfire.files.writing import replacing
from campfire.training import checkpoint


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint."""
    return campfire.train(small(), output=tmp_path_factory.mktemp("good") / "run").output / "last.pt"


Change = Callable[[dict[str, Any]], Any]


def without(key: str) -> Change:
    return lambda state: {k: v for k, v in state.items() if k != key}


def replaced(**values: Any) -> Change:
    return lambda state: {**state, **values}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [1, 2], "no checkpoint of a campfire run"),
        (lambda state: state["model"], "no checkpoint of a campfire run"),
        (without("config"), "configuration in .* cannot be read"),
        (replaced(config="{"), "configuration in .* cannot be read"),
        (replaced(config='{"optim": {"lr": "x"}}'), "configuration in .* cannot be read"),
        (without("optimizer"), "is damaged"),
        (without("history"), "is damaged"),
        (without("rng"), "is damaged"),
        (replaced(model={}), "are of another model: conv1.weight: missing"),
        (replaced(model=[1]), "is damaged"),
        (replaced(optimizer=3), "is damaged"),
        (replaced(pruner=[]), "not the state of a pruner"),
        (replaced(rng={"python": 1}), "is damaged"),
        (replaced(sums="x"), "is damaged"),
        (replaced(epoch="x"), "is damaged"),
    ],
)
def test_a_wrong_checkpoint_is_one_clear_error_and_changes_nothing(
    good: Path, tmp_path: Path, change: Change, message: str
) -> None:
    bad = tmp_path / "last.pt"
    torch.save(change(torch.load(good, weights_only=True)), bad)
    before = bad.read_bytes()
    with pytest.raises(CheckpointError, match=message) as caught:
        campfire.train(small(), output=tmp_path, resume="auto")
    assert caught.value.exit_code == 1
    assert bad.read_bytes() == before
    assert list(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint(good: Path, tmp_path: Path, keep: float) -> None:
    whole = good.read_bytes()
    bad = tmp_path / "last.pt"
    bad.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else int(keep)])
    with pytest.raises(CheckpointError, match=r"cannot read .*last.pt: truncated, or no checkpoint"):
        campfire.train(small(), output=tmp_path, resume="auto")
    with pytest.raises(CheckpointError, match="truncated"):
        campfire.load_run(bad)


def test_code_in_a_checkpoint_is_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"format": checkpoint.FORMAT, "model": Evil()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError):
        campfire.load_run(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        campfire.train(small(), resume=tmp_path / "none.pt")


def test_another_model(good: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model.kwargs is \{'width': 0.5\} here and \{'width': 0.25\}"):
        campfire.train(small(model_kwargs={"width": 0.5}), resume=good)
    with pytest.raises(
        CheckpointError, match=r"conv1.weight: \[4, 1, 3, 3\] in the file, \[8, 1, 3, 3\] in this model"
    ):
        campfire.train(small(model_kwargs={"width": 0.5}), resume=good, allow_config_change=True)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert path.read_text() == "old"


def test_generators_come_back_after_a_round_trip(tmp_path: Path) -> None:
    np.random.standard_normal()  # leaves half of a pair behind
    torch.save(checkpoint.rng_state(), tmp_path / "rng")

    def draw() -> list[float]:
        return [random.random(), float(np.random.standard_normal()), float(torch.rand(()))]

    first = draw()
    checkpoint.set_rng_state(torch.load(tmp_path / "rng", weights_only=True))
    assert draw() == first
