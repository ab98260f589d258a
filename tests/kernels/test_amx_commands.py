"""What a user sees of the tile kernel: benchmark, explain and the list of libraries, as on a CPU with AMX and as on others."""

import json
import re
from pathlib import Path

import pytest
import tile_flavours
import torch

from campfire.bench.kernels import bench_kernels
from campfire.cli import main
from campfire.kernels import KERNELS, Conv, timings
from campfire.kernels.cost import estimate, pace_of
from campfire.kernels.dispatch import refusals
from campfire.kernels.times import Case
from campfire.mask import Mask
from campfire.native import info
from campfire.native.flavours import has_amx
from campfire.packed import Packed, pack

BLOCKS = ["--structure", "tiles:rows=32,channels=32", "--sparsity", "0.7", "--dtype", "bfloat16"]
SMALL = ["--size", "16", "--batch", "2"]


@pytest.fixture
def tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of the emulation are kept nowhere else."""
    tile_flavours.use("emulated avx512", monkeypatch)
    monkeypatch.setattr(timings, "_path", lambda: tmp_path / "timings.json")


def layer() -> Packed:
    keep = torch.zeros(64, 64, 3, 3, dtype=torch.bool)
    keep[:32, :32] = True
    return pack(torch.ones(keep.shape), Mask(keep), "unit", tile=(32, 32, 3, 3))


def test_the_benchmark_runs_it(tiles) -> None:
    found = bench_kernels(["block-32x32"], model="resnet18", batches=[1], rounds=1, size=32, dtype="bfloat16")
    assert {row["kernel"] for row in found["layers"]} == {"blocks-amx"}


@pytest.mark.parametrize("dispatch", ["model", "measure"])
def test_explain_weighs_it_beside_the_others(tiles, dispatch: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "resnet8", *SMALL, *BLOCKS, "--dispatch", dispatch, "--json"]) == 0
    served = [x for x in json.loads(capsys.readouterr().out)["layers"] if min(x["shape"][:2]) >= 32]
    assert served
    for run in (run for x in served for run in x["passes"].values()):
        for kernel in {"blocks-amx", "blocks-bf16"} - {run["kernel"]}:
            assert re.search(r"x dense|the whole model", run["why_not"][kernel])


@pytest.mark.skipif(has_amx(), reason="AMX on this CPU")
def test_without_amx_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "resnet8", *SMALL, *BLOCKS, "--dispatch", "model"]) == 0
    assert "not blocks-amx: no AMX on this CPU" in capsys.readouterr().out


def test_the_model_prefers_tiles_to_vectors(tiles) -> None:
    case = Case(layer(), Conv(1, 1), (16, 64, 14, 14), torch.bfloat16)
    assert refusals(case.packed, case.conv, case.dtype, case.device)["blocks-amx"] == []
    ratios = estimate(case, ["blocks-bf16", "blocks-amx"]).ratios["forward"]
    assert ratios["blocks-amx"] > ratios["blocks-bf16"]


def test_vectors_keep_their_pace_where_tiles_are_not(tiles, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(layer(), Conv(1, 1), (16, 64, 14, 14), torch.bfloat16)
    slow = pace_of(case, "blocks-bf16", "forward").rho
    monkeypatch.setattr("campfire.kernels.cost.has_amx", lambda: False)
    assert pace_of(case, "blocks-bf16", "forward").rho == pytest.approx(8 * slow)


def test_its_libraries_are_listed() -> None:
    assert {"blocks_amx_conv", "blocks_amx_d_values"} <= set(info()["libraries"])
    assert list(KERNELS).index("blocks-amx") > list(KERNELS).index("blocks-bf16")  # the last that can serve, serves
