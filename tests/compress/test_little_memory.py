"""tune_ where a GPU has too little memory to time layers, or the whole model: all of it runs dense, and the plan says why."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from campfire import tune_
from campfire.compress import tuning
from campfire.kernels import KERNELS
from campfire.kernels.base import Conv, Kernel
from campfire.kernels.reference import Dense
from campfire.kernels.times import Case, Times
from campfire.mask import Mask
from campfire.nn import SparseConv2d
from campfire.packed import Packed


class Other(Kernel):
    """Serves everything, as the reference does; not registered by its name."""

    layouts = ("csr",)

    def prepare(self, packed: Packed, conv: Conv) -> Dense:
        return Dense(packed, conv)


@pytest.fixture
def model() -> Iterator[nn.Sequential]:
    usual = dict(KERNELS)
    KERNELS.clear()
    KERNELS.update(reference=usual["reference"], other=Other())
    keep = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.3
    yield nn.Sequential(SparseConv2d.of(nn.Conv2d(8, 8, 3), Mask(keep), kernel="auto"))
    KERNELS.clear()
    KERNELS.update(usual)


def full(*_: object) -> None:
    raise torch.OutOfMemoryError("full")


def twice(case: Case, kernels: list[str], passes: list[str]) -> Times:
    """The other kernel is two times faster."""
    return Times(dict.fromkeys(passes, 1.0), {name: {"reference": 1.0, "other": 2.0} for name in passes})


@pytest.mark.parametrize("too_little_for", ["layers", "model"])
def test_it_runs_dense_and_says_so(model: nn.Sequential, too_little_for: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = full if too_little_for == "layers" else twice
    monkeypatch.setitem(tuning.CLOCKS, "measure", (clock, lambda size, dtype: 0.0))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(tuning, "race", full)
    (layer,) = tune_(model, torch.randn(1, 8, 5, 5), by="measure").layers
    assert layer.choice.dense
    assert model[0].choice().dense  # pyright: ignore[reportCallIssue]
    assert {run.why_not["other"] for run in layer.passes.values()} == {tuning.TOO_LITTLE}


def test_with_memory_it_would_run(model: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tuning.CLOCKS, "measure", (twice, lambda size, dtype: 0.0))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(tuning, "race", lambda *_: None)
    assert tune_(model, torch.randn(1, 8, 5, 5), by="measure").layers[0].choice.forward == "other"
