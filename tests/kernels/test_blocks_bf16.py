"""The bfloat16 block kernels against float64 of the same rounded operands, pass by pass."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire.kernels import KERNELS, Conv
from campfire.kernels.blocks_bf16 import Bf16Passes
from campfire.kernels.blocks_bf16_index import Columns, Pairs
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack

CPU, HALF = torch.device("cpu"), torch.bfloat16
GEOMETRIES = [(3, 1), (1, 0), (3, 0), (3, 2), (5, 2), (1, 1)]  # taps, padding
SIZES = [(3, 7, 9), (1, 13, 8), (16, 5, 5), (2, 14, 15), (1, 4, 3)]  # images, height, width
TILES = [(32, 32), (16, 16), (32, 4), (16, 4), (32, 2), (32, 16), (16, 32)]


def mask(shape: tuple[int, ...], tile: tuple[int, ...], seed: int, kind: str = "some") -> Tensor:
    """Living tiles [K, C, R, S]: scattered, with an empty row group, all, or one."""
    counts = [n // t for n, t in zip(shape, tile, strict=True)]
    keep = torch.rand(counts, generator=torch.Generator().manual_seed(seed)) > 0.6
    keep[-1, -1] = True
    if kind == "empty group":
        keep[0] = False
    if kind in ("full", "one"):
        keep[:] = kind == "full"
        keep[-1, 0, 0, 0] = True
    for axis, times in enumerate(tile):
        keep = keep.repeat_interleave(times, axis)
    return keep


def packed(keep: Tensor, tile: tuple[int, ...], order: Tensor | None = None, seed: int = 0) -> Packed:
    if order is not None:
        keep = torch.empty_like(keep).index_copy_(0, order, keep)
    weight = torch.randn(keep.shape, generator=torch.Generator().manual_seed(seed)).to(HALF).float()
    options = {"tile": tile} if order is None else {"tile": tile, "order": order}
    return pack(weight, Mask(keep), "unit" if order is None else "grouped", **options)


def shuffled(rows: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(1))


def prepared(weight: Packed, conv: Conv) -> Bf16Passes:
    passes = KERNELS["blocks-bf16"].prepare(weight, conv)
    assert isinstance(passes, Bf16Passes)
    return passes


@pytest.fixture(autouse=True)
def served() -> None:
    kernel = KERNELS["blocks-bf16"]
    if reasons := kernel.why_not(packed(torch.ones(32, 32, 1, 1) > 0, (32, 32, 1, 1)), Conv(), HALF, CPU):
        pytest.skip(reasons[0])


def operands(weight: Packed, conv: Conv, size: tuple[int, int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator, shape = torch.Generator().manual_seed(seed), (size[0], weight.shape[1], *size[1:])
    x = torch.randn(shape, generator=generator).to(HALF)
    dy = torch.randn(conv.output(shape, tuple(weight.shape)), generator=generator).to(HALF)
    return x, dy


def three(x: Tensor, weight: Tensor, dy: Tensor, conv: Conv) -> tuple[Tensor, Tensor, Tensor]:
    """The dense passes, in the dtype of the operands."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = conv2d(x, weight, stride=conv.stride, padding=conv.padding)
    y.backward(dy)
    assert x.grad is not None
    assert weight.grad is not None
    return y.detach(), x.grad, weight.grad


def passes_agree(weight: Packed, conv: Conv, size: tuple[int, int, int], seed: int = 0) -> None:
    """All three passes, outputs poisoned with NaN before, within a few times the dense library's own error in bfloat16."""
    x, dy = operands(weight, conv, size, seed)
    value, gather = weight.parts["value"].to(HALF), LAYOUTS[weight.layout].gather
    exact = three(x.double(), weight.dense().double(), dy.double(), conv)
    library = three(x, weight.dense().to(HALF), dy, conv)
    with poisoned():
        passes = prepared(weight, conv)
        got = passes.forward(x, value, None), passes.d_input(dy, value, tuple(x.shape)), passes.d_values(dy, x)
    for name, a, b, c in zip(("forward", "d_input", "d_values"), got, exact, library, strict=True):
        assert a.dtype == HALF
        b, c = (gather(weight, t) if name == "d_values" else t for t in (b, c))
        limit = 2 * float((c - b).abs().max()) + 2**-8 * float(b.abs().max())
        assert float((a - b).abs().max()) <= limit, f"{name}: {float((a - b).abs().max())} > {limit}"


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """New memory holds NaN, so that what a kernel does not write is seen."""
    empty = torch.empty

    def filled(*args: object, **options: object) -> Tensor:
        new = empty(*args, **options)  # pyright: ignore
        return new.fill_(float("nan")) if new.is_floating_point() else new

    with mock.patch.object(torch, "empty", filled):
        yield


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
