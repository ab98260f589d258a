"""``campfire train --compress``: the era's end makes the run a sparse one; its files stay those of a dense model."""

from pathlib import Path

import pytest
from safetensors.torch import load_file
from training_runs import SMALL, assert_equal_runs, records, small

import campfire
from campfire.errors import UsageError
from campfire.nn import SparseConv2d
from campfire.training import checkpoint
from campfire.training.build import build
from campfire.training.loop import Training

FLAGS = SMALL | {"epochs": 5, "compress": True}


def test_it_learns_what_masked_training_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    step = Training._step

    def watched(self: Training) -> None:
        step(self)
        kinds.append(sum(isinstance(m, SparseConv2d) for m in self.parts.model.modules()))

    monkeypatch.setattr(Training, "_step", watched)
    result = campfire.train(output=tmp_path / "compressed", **FLAGS)
    assert kinds[0] == 0
    assert kinds[-1] > 0
    assert sorted(kinds) == kinds, "compressed once, at the end of the era"
    assert "compressed" in (tmp_path / "compressed" / "log.txt").read_text()
    assert not any(isinstance(m, SparseConv2d) for m in result.model.modules())
    masked = campfire.train(output=tmp_path / "masked", **FLAGS | {"compress": False})
    assert result.sparsity_true == masked.sparsity_true
    before = kinds.index(kinds[-1]) // 11  # whole epochs that were trained under masks in both
    ours, theirs = records(tmp_path / "compressed"), records(tmp_path / "masked")
    assert ours[:before] == theirs[:before]
    assert ours[-1]["train_loss"] == pytest.approx(theirs[-1]["train_loss"], rel=0.05)
    one, other = (load_file(tmp_path / run / "model.safetensors") for run in ("compressed", "masked"))
    assert {k: v.shape for k, v in one.items()} == {k: v.shape for k, v in other.items()}
    sizes = [result.summary[k] == masked.summary[k] for k in ("parameters", "kept_parameters", "macs", "sparse_macs")]
    assert all(sizes)
    assert campfire.evaluate(tmp_path / "compressed")["violations"] == []
    state = checkpoint.load(tmp_path / "compressed" / "last.pt")["optimizer"]["state"]
    twin = checkpoint.load(tmp_path / "masked" / "last.pt")["optimizer"]["state"]
    assert {i: s["momentum_buffer"].shape for i, s in state.items()} == {
        i: s["momentum_buffer"].shape for i, s in twin.items()
    }


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opt: str) -> None:
    flags = FLAGS | {"opt": opt}
    campfire.train(output=tmp_path / "whole", **flags)
    step = Training._step

    class Stop(Exception):
        pass

    def stopping(self: Training) -> None:
        step(self)
        if self.at.step == 53:  # compressed since step 44
            raise Stop

    monkeypatch.setattr(Training, "_step", stopping)
    with pytest.raises(Stop):
        campfire.train(output=tmp_path / "cut", recovery_interval=10, **flags)
    monkeypatch.undo()
    campfire.train(output=tmp_path / "cut", resume="auto", recovery_interval=10, **flags)
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.parametrize(
    ("flags", "match"), [({"structure": "dense"}, "prunes nothing"), ({"model_ema": True}, "model-ema")]
)
def test_what_cannot_be_compressed(flags: dict, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(small(compress=True, **flags))
