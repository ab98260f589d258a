"""``campfire train --compress``: the era's end makes the run a sparse one; its files stay those of a dense model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from training_runs import SMALL, assert_equal_runs, records, small

import campfire
from campfire.compress import LayerReport, Plan, Report, tuning
from campfire.errors import CheckpointError, UsageError
from campfire.kernels import KERNELS, Conv, Kernel
from campfire.kernels.reference import Dense
from campfire.kernels.times import Case, Times
from campfire.nn import SparseConv2d
from campfire.packed import LAYOUTS, Packed
from campfire.training import checkpoint, compressing
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
    flags = FLAGS | {"opt": opt, "dispatch": "model"}  # a clock may choose otherwise for each of these runs
    campfire.train(output=tmp_path / "whole", **flags)
    cut_after(monkeypatch, 53)  # compressed since step 44
    with pytest.raises(Stop):
        campfire.train(output=tmp_path / "cut", recovery_interval=10, **flags)
    monkeypatch.undo()
    campfire.train(output=tmp_path / "cut", resume="auto", recovery_interval=10, **flags)
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")


def test_a_resumed_run_measures_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = FLAGS | {"epochs": 4, "era_length": 1, "recovery_interval": 5}
    asked = clock(monkeypatch, "near")
    campfire.train(output=tmp_path / "whole", **flags)
    assert len(asked) > 3
    assert set(asked) == {(128, "float32")}
    cut_after(monkeypatch, 37)
    with pytest.raises(Stop):
        campfire.train(output=tmp_path / "cut", **flags)
    plan = checkpoint.load(tmp_path / "cut" / "last.pt")["plan"]
    assert plan["layers"][0]["passes"]["d_input"]["kernel"] == "near"
    monkeypatch.setattr(Training, "_step", STEP)
    asked = clock(monkeypatch, "reference")  # it would choose otherwise
    campfire.train(output=tmp_path / "cut", resume="auto", **flags)
    assert asked == []
    assert checkpoint.load(tmp_path / "cut" / "last.pt")["plan"] == plan
    assert_equal_runs(tmp_path / "cut", tmp_path / "whole")
    campfire.train(output=tmp_path / "dense", **flags)
    one, other = (load_file(tmp_path / run / "model.safetensors") for run in ("whole", "dense"))
    assert any(not torch.equal(one[name], other[name]) for name in one), "kernels round differently, or prove nothing"


def test_a_kernel_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, "near")
    flags = FLAGS | {"epochs": 4, "era_length": 1}
    cut_after(monkeypatch, 36)
    with pytest.raises(Stop):
        campfire.train(output=tmp_path / "run", recovery_interval=10, **flags)
    monkeypatch.setattr(Training, "_step", STEP)
    monkeypatch.setattr(type(KERNELS["near"]), "why_not", lambda *_: ["not on this machine"])
    campfire.train(output=tmp_path / "run", resume="auto", **flags)
    assert "runs dense, otherwise than before: near: not on this machine" in (tmp_path / "run" / "log.txt").read_text()


def test_a_damaged_plan_is_a_checkpoint_error(tmp_path: Path) -> None:
    campfire.train(output=tmp_path / "run", **FLAGS | {"epochs": 4, "era_length": 1, "dispatch": "model"})
    saved = checkpoint.load(tmp_path / "run" / "last.pt")
    saved["plan"]["layers"][0]["passes"]["forward"]["kernel"] = 3
    checkpoint.save(tmp_path / "run" / "last.pt", saved)
    with pytest.raises(CheckpointError, match="choice of kernels"):
        campfire.train(
            output=tmp_path / "run", resume="auto", **FLAGS | {"epochs": 4, "era_length": 1, "dispatch": "model"}
        )


def test_compression_of_a_compiled_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled(model, backend="aot_eager"))
    flags = FLAGS | {"epochs": 3, "era_start": 0, "era_length": 1, "dispatch": "model"}
    eager, ours = (campfire.train(output=tmp_path / str(c), compile=c, **flags) for c in (False, True))
    assert ours.sparsity_true == eager.sparsity_true
    last = [records(tmp_path / str(c))[-1]["train_loss"] for c in (False, True)]
    assert last[0] == pytest.approx(last[1], rel=0.02)
    torch._dynamo.reset()


class Stop(Exception):
    """The run ends here, as if it was killed."""


STEP = Training._step


def cut_after(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    def stopping(self: Training) -> None:
        STEP(self)
        if self.at.step == last:
            raise Stop

    monkeypatch.setattr(Training, "_step", stopping)


def clock(monkeypatch: pytest.MonkeyPatch, fastest: str) -> list[tuple[int, str]]:
    """A clock that finds one kernel fastest; images and dtype of the cases that it is asked for."""
    asked: list[tuple[int, str]] = []

    class Near(Kernel):
        layouts = tuple(LAYOUTS)

        def prepare(self, packed: Packed, conv: Conv) -> Dense:
            return Doubled(packed, conv)

    def measure(case: Case, kernels: Sequence[str], passes: Sequence[str]) -> Times:
        asked.append((case.size[0], str(case.dtype).removeprefix("torch.")))
        ratios = {kernel: 2.0 if kernel == fastest else 1.0 for kernel in kernels}
        return Times(dict.fromkeys(passes, 1.0), dict.fromkeys(passes, ratios))

    monkeypatch.setitem(KERNELS, "near", Near())
    monkeypatch.setitem(tuning.CLOCKS, "measure", (measure, lambda size, dtype: 1.0))
    monkeypatch.setattr(tuning, "race", lambda *_: None)  # a whole model is timed by no clock of ours
    return asked


class Doubled(Dense):
    """The reference in float64: it rounds differently."""

    def forward(self, x: Tensor, value: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        return super().forward(x.double(), value.double(), None if bias is None else bias.double(), *rest).to(x.dtype)


@pytest.mark.parametrize(
    ("flags", "match"), [({"structure": "dense"}, "prunes nothing"), ({"model_ema": True}, "model-ema")]
)
def test_what_cannot_be_compressed(flags: dict, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build(small(compress=True, **flags))


def test_a_run_says_when_compression_brings_no_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = build(small(compress=True, structure="ck"))
    monkeypatch.setattr(compressing, "compress_", lambda *_: Report([LayerReport("a", (1, 1, 1, 1), 1, 1, "csr")]))
    for whole, told in ((None, False), (1.0, False), (0.9, True)):
        monkeypatch.setattr(compressing, "tune_", lambda *_, whole=whole, **__: Plan(whole=whole))
        caplog.clear()
        with caplog.at_level("INFO", logger="campfire"):
            assert compressing.compress(parts) == Plan(whole=whole).to_dict()
        assert ("trains at 0.90 of its dense speed" in caplog.text) == told
