"""The bfloat16 block kernels against float64 of the same rounded operands, pass by pass."""

import dataclasses
import itertools
from functools import partial

import bf16_cases
import pytest
import torch
from bf16_cases import CPU, GEOMETRIES, HALF, SIZES, THIN, mask, operands, packed, poisoned, shuffled
from torch.nn.functional import conv2d

from campfire.kernels import KERNELS, Conv
from campfire.kernels.blocks.bf16_index import Columns, Pairs
from campfire.mask import Mask
from campfire.packed import pack

TILES = [(32, 32), (16, 16), (32, 4), (16, 4), (32, 2), (32, 16), (16, 32)]


passes_agree, prepared = partial(bf16_cases.passes_agree, "blocks-bf16"), partial(bf16_cases.prepared, "blocks-bf16")


@pytest.fixture(autouse=True)
def served() -> None:
    kernel = KERNELS["blocks-bf16"]
    if reasons := kernel.why_not(packed(torch.ones(32, 32, 1, 1) > 0, (32, 32, 1, 1)), Conv(), HALF, CPU):
        pytest.skip(reasons[0])


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("order", [False, True])
def test_every_geometry(tile: tuple[int, int], order: bool) -> None:
    for seed, ((taps, padding), stride) in enumerate(itertools.product(GEOMETRIES, (1, 2, 3))):
        shape = ((96, 64, 48)[seed % 3] if tile[0] == 16 else (64, 96, 160)[seed % 3], 64, taps, taps)
        box = (*tile, 1, 1) if seed % 4 == 3 else (*tile, taps, taps)
        for kind in ("some", "empty group", "full", "one")[: 4 if seed == 0 else 1]:
            weight = packed(mask(shape, box, seed, kind), box, shuffled(shape[0]) if order else None, seed)
            passes_agree(weight, Conv(stride, padding), SIZES[seed % len(SIZES)], seed)


@pytest.mark.parametrize("images", [1, 2, 15, 16, 17])
@pytest.mark.parametrize("taps", [1, 3])
def test_batches(images: int, taps: int) -> None:
    box = (32, 32, taps, taps)
    passes_agree(packed(mask((64, 64, taps, taps), box, 0), box), Conv(1, taps // 2), (images, 6, 11))


@pytest.mark.parametrize("size", THIN)
@pytest.mark.parametrize("channels", [4, 32])
def test_images_one_pixel_wide_or_high(size: tuple[int, int, int], channels: int) -> None:
    box = (32, channels, 3, 3)
    passes_agree(packed(mask((64, 64, 3, 3), box, 0), box), Conv(2, 1), size)


@pytest.mark.parametrize("layer", [(1024, 32, 1), (32, 2048, 1), (512, 512, 3)])
def test_many_channels(layer: tuple[int, int, int]) -> None:
    """Pixels whose distance is a power of two; weights that threads share out by rows."""
    rows, channels, taps = layer
    box = (32, 32, taps, taps)
    weight = packed(mask((rows, channels, taps, taps), box, 0), box, shuffled(rows))
    passes_agree(weight, Conv(1, taps // 2), (2, 3, 5))


def test_channels_that_are_no_multiple_of_a_vector() -> None:
    weight = packed(mask((32, 12, 3, 3), (32, 4, 3, 3), 0), (32, 4, 3, 3))
    passes_agree(weight, Conv(1, 1), (2, 5, 5))


def test_blocks_are_found_in_smaller_tiles() -> None:
    """As `pack` cuts them by default."""
    keep = mask((64, 64, 3, 3), (32, 32, 3, 3), 0)
    small = pack(torch.randn(keep.shape), Mask(keep), "unit")
    columns = prepared(small, Conv(1, 1)).columns
    assert small.parts["tile"].tolist() == [32, 4, 3, 3]
    assert columns is not None
    assert columns.lanes == 32
    assert prepared(packed(mask((64, 64, 3, 3), (32, 4, 3, 3), 0), (32, 4, 3, 3)), Conv(1, 1)).columns is None


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("tile", [(32, 32, 3, 3), (16, 4, 3, 3)])
def test_epilogue(order: bool, tile: tuple[int, ...]) -> None:
    weight = packed(mask((64, 32, 3, 3), tile, 0), tile, shuffled(64) if order else None)
    x, residual = operands(weight, Conv(1, 1), (2, 5, 6))
    bias, value = torch.randn(64).to(HALF), weight.parts["value"].to(HALF)
    exact = conv2d(x.double(), weight.dense().double(), bias.double(), padding=1)
    for shortcut, relu in itertools.product((None, residual), (False, True)):
        wanted = exact if shortcut is None else exact + shortcut
        wanted = wanted.relu() if relu else wanted
        got = prepared(weight, Conv(1, 1)).forward(x, value, bias, shortcut, relu)
        assert torch.allclose(got.double(), wanted, rtol=2**-7, atol=2**-7)


def test_threads_agree_bit_for_bit() -> None:
    before = torch.get_num_threads()
    for taps, (rows, channels), order in ((3, (64, 64), None), (1, (64, 64), shuffled(64)), (3, (512, 512), None)):
        box = (32, 32, taps, taps)
        passes = prepared(packed(mask((rows, channels, taps, taps), box, 0), box, order), Conv(1, taps // 2))
        weight = packed(mask((rows, channels, taps, taps), box, 0), box, order)
        value, found = weight.parts["value"].to(HALF), []
        x, dy = operands(weight, passes.conv, (3, 7, 5))
        try:
            for threads in (1, 2):
                torch.set_num_threads(threads)
                got = passes.forward(x, value, None), passes.d_input(dy, value, x.shape), passes.d_values(dy, x)
                found.append(got)
        finally:
            torch.set_num_threads(before)
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_infinity_reaches_what_it_belongs_to_only() -> None:
    weight = packed(mask((64, 64, 3, 3), (32, 32, 3, 3), 2, "full"), (32, 32, 3, 3))
    passes, dy, x = prepared(weight, Conv(1, 1)), torch.zeros(1, 64, 9, 9).to(HALF), torch.zeros(1, 64, 9, 9).to(HALF)
    dy[0, :, 4, 4] = float("inf")
    dx = passes.d_input(dy, weight.parts["value"].to(HALF), (1, 64, 9, 9))
    assert not dx[0, :, 4, 4].isfinite().any()
    dx[0, :, 3:6, 3:6] = 0
    assert (dx == 0).all()
    x[0, 5, 8, 8] = float("inf")  # the last pixel of an odd number, and the end of the padded rows
    dv = passes.d_values(torch.ones_like(dy), x).view(2, 2, 9, 32, 32)  # group, block, tap, channel, row
    touched = ~dv.isfinite()
    assert touched[:, 0, 4, 5].all()
    assert not touched[:, 1].any()
    assert not touched[:, 0, :, :5].any()


def test_results_larger_than_the_caches() -> None:
    """They are written past the caches."""
    weight = packed(mask((64, 32, 1, 1), (32, 32, 1, 1), 0, "full"), (32, 32, 1, 1))
    passes, value, generator = (
        prepared(weight, Conv()),
        weight.parts["value"].to(HALF),
        torch.Generator().manual_seed(0),
    )
    x = torch.randn(1, 32, 371, 373, generator=generator).to(HALF)
    with poisoned():
        y = passes.forward(x, value, None)
    assert torch.allclose(y, conv2d(x, weight.dense().to(HALF)), rtol=2**-6, atol=2**-6)


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, good = KERNELS["blocks-bf16"], packed(mask((64, 64, 3, 3), (32, 4, 3, 3), 0), (32, 4, 3, 3))
    single = packed(mask((64, 64, 1, 1), (32, 1, 1, 1), 0), (32, 1, 1, 1))
    assert kernel.why_not(single, Conv(), HALF, CPU) == ["its vectors are 16 outputs x 2 inputs; the tile has 32 x 1"]
    assert "dilation" in kernel.why_not(good, Conv(dilation=2), HALF, CPU)[0]
    assert "float32" in kernel.why_not(good, Conv(), torch.float32, CPU)[0]
    monkeypatch.setenv("CAMPFIRE_ISA", "portable")
    assert kernel.why_not(good, Conv(), HALF, CPU) == ["it needs AVX512-BF16, of the CPU and of the compiler"]


def test_other_dtypes_run_dense() -> None:
    weight = packed(mask((64, 64, 3, 3), (32, 4, 3, 3), 0), (32, 4, 3, 3))
    x = torch.randn(2, 64, 5, 6)
    y = prepared(weight, Conv(1, 1)).forward(x, weight.parts["value"], None)
    assert torch.allclose(y, conv2d(x, weight.dense(), padding=1), atol=1e-4)


@pytest.mark.parametrize(("index", "part"), [(Pairs, "tap"), (Pairs, "channel"), (Columns, "source")])
def test_a_wrong_index_is_seen(index: type, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, built = packed(mask((64, 64, 3, 3), (32, 32, 3, 3), 0), (32, 32, 3, 3)), index.of

    def wrong(tiles: object) -> object:
        right = built(tiles)
        return dataclasses.replace(right, **{part: getattr(right, part).flip(0)})

    monkeypatch.setattr(index, "of", wrong)
    with pytest.raises(AssertionError, match=r"forward|d_"):
        passes_agree(weight, Conv(1, 1), (2, 7, 9))
