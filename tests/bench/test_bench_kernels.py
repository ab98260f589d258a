"""The kernel benchmark times what it says: every layer of the network, equal results, figures that belong together."""

import json
import math

import pytest
import torch

from campfire.bench.candidates import CANDIDATES
from campfire.bench.kernels import PASSES, _conversions, _dense, _sparse, bench_kernels
from campfire.bench.layers import Layer, layers_of
from campfire.cli import main
from campfire.errors import UnknownName
from campfire.kernels import Conv, serving
from campfire.kernels.formats import is_format
from campfire.packed import LAYOUTS, pack


def test_the_layers_of_resnet50() -> None:
    layers = layers_of("resnet50")
    flops = sum(
        2 * x.count * math.prod(x.conv.output((1, x.shape[1], *x.size), x.shape)[2:]) * math.prod(x.shape)
        for x in layers
    )
    stem, head = 2 * 112 * 112 * 64 * 3 * 49, 2 * 2048 * 1000
    assert flops + stem + head == 8_178_368_512
    assert (len(layers), sum(x.count for x in layers)) == (22, 52)


@pytest.mark.parametrize("name", list(CANDIDATES))
def test_both_sides_compute_the_same(name: str) -> None:
    layer = Layer((128, 64, 3, 3), (9, 7), Conv(2, 1))
    weight, x = torch.randn(layer.shape), torch.randn(3, 64, 9, 7)
    dy = torch.randn(layer.conv.output(tuple(x.shape), layer.shape))
    mask = CANDIDATES[name].mask(weight, 0.6)
    packed = pack(weight, mask, CANDIDATES[name].layout)
    kernel = serving(packed, layer.conv, x.dtype, x.device)
    prepared = kernel.prepare(packed, layer.conv)
    dense = _dense(weight * mask.keep, x, dy, layer, torch.channels_last)
    dense_values = LAYOUTS[packed.layout].gather(packed, dense["d_values"]()[1])
    sparse = _sparse(packed, prepared, x, dy, kernel.format)
    assert torch.allclose(dense["forward"](), sparse["forward"](), atol=1e-4)
    assert torch.allclose(dense["d_input"]()[0], sparse["d_input"](), atol=1e-4)
    assert torch.allclose(dense_values, sparse["d_values"](), atol=1e-3)


def test_bfloat16() -> None:
    found = bench_kernels(["block-32x32"], model="resnet18", batches=[2], rounds=1, size=32, dtype="bfloat16")
    assert found["dtype"] == "bfloat16"
    assert {row["kernel"] for row in found["layers"]} <= {"blocks-amx", "blocks-bf16", "reference"}


def test_figures_belong_together() -> None:
    found = bench_kernels(["hrbp", "block-16x1"], model="resnet18", batches=[2], rounds=1, size=32)
    assert found["geomean"] == found["by_structure"]["hrbp"]["2"]["geomean"]
    rows = [row for row in found["layers"] if row["structure"] == "hrbp"]
    product = math.prod(row["forward"]["ratio"] for row in rows)
    assert found["geomean"]["forward"] == pytest.approx(product ** (1 / len(rows)))
    for row in found["layers"]:
        assert row["density"] == pytest.approx(0.3, abs=0.05)
        for name in PASSES:
            assert row[name]["rho"] == pytest.approx(row[name]["ratio"] * row["density"])
    with pytest.raises(UnknownName, match="bfloat16"):
        bench_kernels(dtype="bf16")
    with pytest.raises(UnknownName, match="hrbp"):
        bench_kernels(["hrpb"])


def test_kinds_of_layers_and_conversions() -> None:
    found = bench_kernels(["ck", "window"], model="resnet18", batches=[3], rounds=1, size=32)
    assert set(found["by_structure"]["ck"]["3"]["by_kind"]) == {"3x3", "1x1"}
    assert set(found["by_structure"]["window"]["3"]["by_kind"]) == {"3x3"}
    assert found["by_structure"]["window"]["3"]["density"] == pytest.approx(2 / 9)
    for row in found["layers"]:
        assert row["kernel"] in ("lanes", "reference")
        if row["format"] == "chwn":
            x = row["forward"]
            assert x["ratio_converted"] == pytest.approx(
                x["dense_ms"] / (x["sparse_ms"] + x["convert_ms"]["in"] + x["convert_ms"]["out"])
            )


def test_conversions_bring_and_take_what_a_pass_needs() -> None:
    x, dy = torch.randn(16, 4, 3, 3), torch.randn(16, 8, 3, 3)
    runs = _conversions(x, dy, "chwn")
    shapes = {name: tuple([t.shape[1] for t in sides[s]()] for s in ("in", "out")) for name, sides in runs.items()}
    assert shapes == {"forward": ([4], [8]), "d_input": ([8], [4]), "d_values": ([4, 8], [])}
    assert is_format(runs["forward"]["in"]()[0], "chwn")
    assert is_format(runs["forward"]["out"]()[0], "nhwc")


def test_blocks_are_whole_and_counted() -> None:
    mask = CANDIDATES["hrbp-32x4"].mask(torch.randn(64, 16, 1, 1), 0.75)
    blocks = mask.keep[mask.plan["order"]].unflatten(0, (2, 32)).unflatten(2, (4, 4))
    assert torch.equal(blocks.amax((1, 3)), blocks.amin((1, 3)))
    assert mask.sparsity == 0.75


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--model", "resnet18", "--size", "32", "--rounds", "1", "--batches", "1"]
    assert main(["bench", "kernels", *small, "--structures", "block-32x4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["geomean"]) == set(PASSES)
    assert main(["bench", "kernels", *small]) == 0
    assert "geomean" in capsys.readouterr().out
    assert main(["bench", "kernels", *small, "--structures", "blok"]) == 2
    assert main(["bench", "kernels", "--batches", "16,x"]) == 2
