"""The tile kernels against float64, over the cases of the kernels without tiles: emulated everywhere, real where AMX is."""

import ctypes
import itertools
from functools import partial

import bf16_cases
import pytest
import tile_flavours
import torch
from bf16_cases import CPU, GEOMETRIES, HALF, SIZES, THIN, mask, operands, packed, poisoned, shuffled
from torch.nn.functional import conv2d

from campfire import native
from campfire.kernels import KERNELS, Conv, serving
from campfire.kernels.blocks import amx as blocks_amx
from campfire.kernels.blocks.amx import AmxPasses, Blocks
from campfire.mask import Mask
from campfire.packed import pack

passes_agree, prepared = partial(bf16_cases.passes_agree, "blocks-amx"), partial(bf16_cases.prepared, "blocks-amx")


@pytest.fixture(autouse=True, params=tile_flavours.RUNS)
def tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    tile_flavours.use(request.param, monkeypatch)


@pytest.mark.parametrize("rows", [32, 16])
@pytest.mark.parametrize("order", [False, True])
def test_every_geometry(rows: int, order: bool) -> None:
    for seed, ((taps, padding), stride) in enumerate(itertools.product(GEOMETRIES, (1, 2, 3))):
        shape = (3 * rows, (64, 32, 96)[seed % 3], taps, taps)
        box = (rows, 32, 1, 1) if seed % 4 == 3 else (rows, 32, taps, taps)
        for kind in ("some", "empty group", "full", "one")[: 4 if seed == 0 else 1]:
            weight = packed(mask(shape, box, seed, kind), box, shuffled(shape[0]) if order else None, seed)
            passes_agree(weight, Conv(stride, padding), SIZES[seed % len(SIZES)], seed)


@pytest.mark.parametrize("images", [1, 2, 15, 16, 17])
@pytest.mark.parametrize("taps", [1, 3])
def test_batches(images: int, taps: int) -> None:
    box = (32, 32, taps, taps)
    passes_agree(packed(mask((64, 64, taps, taps), box, 0), box), Conv(1, taps // 2), (images, 6, 11))


@pytest.mark.parametrize("rows", [32, 16])
@pytest.mark.parametrize("images", [1, 33, 150])
def test_linear_layers(rows: int, images: int) -> None:
    box = (rows, 32, 1, 1)
    passes_agree(packed(mask((64, 128, 1, 1), box, 0), box), Conv(), (images, 1, 1))


@pytest.mark.parametrize("width", [1, 15, 16, 17, 31, 33, 50])
def test_rows_that_do_not_fill_their_tiles(width: int) -> None:
    box = (32, 32, 3, 3)
    passes_agree(packed(mask((32, 64, 3, 3), box, 0), box), Conv(1, 1), (3, 4, width))


NARROW = [  # images, height, width; taps, stride
    ((17, 3, 7), 3, 1),  # 2 images side by side, the last alone
    ((5, 3, 4), 1, 2),  # 4
    ((19, 3, 10), 3, 1),  # 4, in runs of 4, 4 and 2 columns
    ((9, 5, 5), 3, 2),  # 16 forward, 4 and 8 in the phases of the gradient
    ((3, 6, 14), 1, 2),
    *((size, 3, 2) for size in THIN),
]


@pytest.mark.parametrize("rows", [32, 16])
@pytest.mark.parametrize("order", [False, True])
def test_narrow_rows_of_images_side_by_side(rows: int, order: bool) -> None:
    for seed, (size, taps, stride) in enumerate(NARROW):
        box = (rows, 32, taps, taps)
        weight = packed(mask((64, 64, taps, taps), box, seed), box, shuffled(64) if order else None)
        passes_agree(weight, Conv(stride, taps // 2), size, seed)


@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (3, 2), (1, 2)])
def test_images_side_by_side_fill_tiles(taps: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 7 outputs: half as many products."""
    box, conv = (32, 32, taps, taps), Conv(stride, taps // 2)
    weight, found = packed(mask((64, 64, taps, taps), box, 0), box), []
    value, (x, dy) = weight.parts["value"].to(HALF), operands(weight, conv, (4, 7 * stride, 7 * stride))
    for side_by_side in (blocks_amx.side_by_side, lambda images, columns: 1):
        monkeypatch.setattr(blocks_amx, "side_by_side", side_by_side)
        passes = prepared(weight, conv)
        counted()
        passes.forward(x, value, None)
        found.append(counted())
        passes.d_input(dy, value, x.shape)
        found.append(counted())
    assert [2 * together for together in found[:2]] == found[2:]


def counted() -> int:
    """Products of tiles since the last call."""
    library, counts = native.library("blocks_amx_conv"), (ctypes.c_int64 * 3)()
    if not hasattr(library, "campfire_tiles_counted"):
        pytest.skip("only the emulation counts")
    library.campfire_tiles_counted(counts)  # pyright: ignore[reportOptionalMemberAccess]
    return counts[0]


@pytest.mark.parametrize("layer", [(1024, 32, 1), (32, 2048, 1), (256, 256, 3)])
def test_many_channels(layer: tuple[int, int, int]) -> None:
    """Pixels whose distance is a power of two; weights that threads share out by rows."""
    rows, channels, taps = layer
    box = (32, 32, taps, taps)
    weight = packed(mask((rows, channels, taps, taps), box, 0), box, shuffled(rows))
    passes_agree(weight, Conv(1, taps // 2), (2, 3, 5))


def test_several_items_of_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """More rows and images than the gradient of the values works on at a time; images that are left over."""
    monkeypatch.setattr(blocks_amx, "POSITIONS", 4096)  # 64 of them
    for rows, stride in ((32, 1), (16, 2)):
        box = (rows, 32, 3, 3)
        passes_agree(packed(mask((64, 64, 3, 3), box, 1), box), Conv(stride, 1), (7, 9, 10))


def test_blocks_are_found_in_smaller_tiles() -> None:
    """As `pack` cuts them by default."""
    keep = mask((64, 64, 3, 3), (32, 32, 3, 3), 0)
    small = pack(torch.randn(keep.shape).to(HALF).float(), Mask(keep), "unit")
    assert small.parts["tile"].tolist() == [32, 4, 3, 3]
    assert KERNELS["blocks-amx"].why_not(small, Conv(1, 1), HALF, CPU) == []
    passes_agree(small, Conv(1, 1), (2, 5, 6))


@pytest.mark.parametrize("tile", [(64, 32), (48, 32), (64, 4), (128, 32)])
def test_tall_tiles_are_cut(tile: tuple[int, int]) -> None:
    shape = (2 * tile[0], 64, 3, 3)
    weight = packed(mask(shape, (tile[0], 32, 3, 3), 1), (*tile, 3, 3), shuffled(shape[0]))
    passes_agree(weight, Conv(2, 1), (2, 5, 6))


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("rows", [32, 16])
def test_epilogue(order: bool, rows: int) -> None:
    box = (rows, 32, 3, 3)
    weight = packed(mask((64, 32, 3, 3), box, 0), box, shuffled(64) if order else None)
    x, residual = operands(weight, Conv(1, 1), (2, 5, 6))
    bias, value = torch.randn(64).to(HALF), weight.parts["value"].to(HALF)
    exact = conv2d(x.double(), weight.dense().double(), bias.double(), padding=1)
    for shortcut, relu in itertools.product((None, residual), (False, True)):
        wanted = exact if shortcut is None else exact + shortcut
        wanted = wanted.relu() if relu else wanted
        got = prepared(weight, Conv(1, 1)).forward(x, value, bias, shortcut, relu)
        assert torch.allclose(got.double(), wanted, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("layer", [(3, 64, 64, False), (1, 64, 64, True), (3, 256, 256, False)])
def test_threads_agree_bit_for_bit(layer: tuple[int, int, int, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    taps, rows, channels, order = layer
    monkeypatch.setattr(blocks_amx, "POSITIONS", 8192)
    box = (32, 32, taps, taps)
    weight = packed(mask((rows, channels, taps, taps), box, 0), box, shuffled(rows) if order else None)
    passes, before, found = prepared(weight, Conv(1, taps // 2)), torch.get_num_threads(), []
    value, (x, dy) = weight.parts["value"].to(HALF), operands(weight, passes.conv, (3, 7, 5))
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append((passes.forward(x, value, None), passes.d_input(dy, value, x.shape), passes.d_values(dy, x)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_infinity_reaches_what_it_belongs_to_only() -> None:
    weight = packed(mask((64, 64, 3, 3), (32, 32, 3, 3), 2, "full"), (32, 32, 3, 3))
    passes, dy = prepared(weight, Conv(1, 1)), torch.zeros(1, 64, 9, 9).to(HALF)
    dy[0, :, 4, 4] = float("inf")
    dx = passes.d_input(dy, weight.parts["value"].to(HALF), (1, 64, 9, 9))
    assert not dx[0, :, 4, 4].isfinite().any()
    dx[0, :, 3:6, 3:6] = 0
    assert (dx == 0).all()


@pytest.mark.parametrize("width", [9, 17])  # one tile a row, and two that overlap
def test_infinite_values_reach_their_taps_only(width: int) -> None:
    """The first column is read through two of the three columns of taps, everything else of its channel stays finite."""
    weight = packed(mask((32, 64, 3, 3), (32, 32, 3, 3), 2, "full"), (32, 32, 3, 3))
    x, dy = torch.ones(2, 64, 9, width).to(HALF), torch.ones(2, 32, 9, width).to(HALF)
    x[1, 5, :, 0] = float("inf")
    dv = prepared(weight, Conv(1, 1)).d_values(dy, x).view(2, 3, 3, 32, 32)  # block, taps, channel, row
    touched = ~dv.isfinite()
    assert touched[0, :, :2, 5].all()
    touched[0, :, :2, 5] = False
    assert not touched.any()


def test_layers_larger_than_the_caches() -> None:
    """Whole cache lines go past the caches; the last of a row of runs has another length."""
    weight = packed(mask((64, 32, 1, 1), (32, 32, 1, 1), 0, "full"), (32, 32, 1, 1))
    x = torch.randn(1, 32, 171, 193, generator=torch.Generator().manual_seed(0)).to(HALF)
    with poisoned():
        y = prepared(weight, Conv()).forward(x, weight.parts["value"].to(HALF), None)
    assert y.numel() > 2 << 20
    assert torch.allclose(y, conv2d(x, weight.dense().to(HALF)), rtol=2**-6, atol=2**-6)


def test_other_dtypes_run_dense() -> None:
    weight = packed(mask((64, 64, 3, 3), (32, 32, 3, 3), 0), (32, 32, 3, 3))
    x = torch.randn(2, 64, 5, 6)
    y = prepared(weight, Conv(1, 1)).forward(x, weight.parts["value"], None)
    assert torch.allclose(y, conv2d(x, weight.dense(), padding=1), atol=1e-4)


@pytest.mark.parametrize("part", ["block", "tap", "source"])
def test_a_wrong_index_is_seen(part: str) -> None:
    weight = packed(mask((64, 128, 3, 3), (32, 32, 3, 3), 0), (32, 32, 3, 3))
    passes = prepared(weight, Conv(1, 1))
    assert isinstance(passes, AmxPasses)
    right = passes.blocks
    wrong = {name: getattr(right, name) for name in ("start", "block", "tap", "source")}
    wrong[part] = wrong[part].flip(0)
    passes.blocks = Blocks(**wrong)
    passes.pairs = passes.blocks.pairs()
    x, dy = operands(weight, passes.conv, (2, 7, 9))
    value, again = weight.parts["value"].to(HALF), prepared(weight, Conv(1, 1))
    assert not torch.equal(passes.forward(x, value, None), again.forward(x, value, None))
    assert not torch.equal(passes.d_values(dy, x), again.d_values(dy, x))


def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, good = KERNELS["blocks-amx"], packed(mask((64, 64, 3, 3), (32, 32, 3, 3), 0), (32, 32, 3, 3))
    assert kernel.why_not(good, Conv(), HALF, CPU) == []
    assert serving(good, Conv(), HALF, CPU) is kernel
    narrow = packed(mask((64, 64, 1, 1), (32, 4, 1, 1), 0), (32, 4, 1, 1))
    assert "32 inputs" in kernel.why_not(narrow, Conv(), HALF, CPU)[0]
    assert "float32" in kernel.why_not(good, Conv(), torch.float32, CPU)[0]
    monkeypatch.setattr(blocks_amx, "has_amx", lambda: False)
    assert kernel.why_not(good, Conv(), HALF, CPU) == ["no AMX on this CPU"]


def test_a_system_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing:
        campfire_blocks_amx_built = staticmethod(lambda: 1)
        campfire_blocks_amx_refused = staticmethod(lambda: 95)
        campfire_blocks_bf16_built = staticmethod(lambda: 1)

    monkeypatch.setattr(native, "library", lambda name: Refusing)
    good = packed(mask((64, 64, 3, 3), (32, 32, 3, 3), 0), (32, 32, 3, 3))
    (reason,) = KERNELS["blocks-amx"].why_not(good, Conv(), HALF, CPU)
    assert reason == "the system does not let this process use AMX (error 95)"
    assert serving(good, Conv(), HALF, CPU).name == "blocks-bf16"
    monkeypatch.setattr(Refusing, "campfire_blocks_amx_built", staticmethod(lambda: 0))
    assert "flavour amx" in KERNELS["blocks-amx"].why_not(good, Conv(), HALF, CPU)[0]
    monkeypatch.setattr(native, "library", lambda name: None)
    assert "native code is off" in KERNELS["blocks-amx"].why_not(good, Conv(), HALF, CPU)[0]
