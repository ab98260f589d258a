"""Block kernels against float64, pass by pass, in every flavour that this CPU runs."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire import native
from campfire.kernels import KERNELS, Conv
from campfire.kernels.blocks import kernel as blocks
from campfire.kernels.blocks.index import Entries, Phases, Sets
from campfire.kernels.blocks.kernel import BlockPasses
from campfire.mask import Mask
from campfire.native.flavours import flavour_names
from campfire.packed import LAYOUTS, Packed, pack

SHAPE = (64, 32)
CPU = torch.device("cpu")
GEOMETRIES = [(3, 1), (1, 0), (3, 0), (3, 2), (5, 2), (1, 1)]  # taps, padding
SIZES = [(3, 7, 9), (1, 13, 8), (17, 5, 5)]  # images, height, width
THIN = [(2, 3, 1), (2, 1, 3), (2, 1, 1)]


def masks(tile: tuple[int, ...], taps: int, seed: int) -> dict[str, Tensor]:
    """Living tiles [K, C, R, S]: scattered, with an empty row group, with every tile, with one."""
    counts = [n // t for n, t in zip((*SHAPE, taps, taps), tile, strict=True)]
    some = torch.rand(counts, generator=torch.Generator().manual_seed(seed)) > 0.6
    some[-1, -1] = True
    empty, one = some.clone(), torch.zeros_like(some)
    empty[0], one[-1, 0, 0, 0] = False, True
    kinds = {"some": some, "empty group": empty, "full": torch.ones_like(some), "one": one}
    return {name: _grown(keep, tile) for name, keep in kinds.items()}


def _grown(keep: Tensor, tile: tuple[int, ...]) -> Tensor:
    for axis, times in enumerate(tile):
        keep = keep.repeat_interleave(times, axis)
    return keep


def packed(keep: Tensor, tile: tuple[int, ...], order: Tensor | None, seed: int = 0) -> Packed:
    if order is not None:
        keep = torch.empty_like(keep).index_copy_(0, order, keep)
    weight = torch.randn(keep.shape, generator=torch.Generator().manual_seed(seed))
    options = {"tile": tile} if order is None else {"tile": tile, "order": order}
    return pack(weight, Mask(keep), "unit" if order is None else "grouped", **options)


def prepared(weight: Packed, conv: Conv) -> BlockPasses:
    kernel = KERNELS["blocks"]
    assert not kernel.why_not(weight, conv, torch.float32, CPU)
    passes = kernel.prepare(weight, conv)
    assert isinstance(passes, BlockPasses)
    return passes


def passes_agree(weight: Packed, conv: Conv, size: tuple[int, int, int], seed: int = 0) -> None:
    """All three passes, outputs poisoned with NaN before, within a few times the dense library's own error."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size[0], weight.shape[1], *size[1:], generator=generator).contiguous(
        memory_format=torch.channels_last
    )
    passes, value = prepared(weight, conv), weight.parts["value"]
    exact = x.double().requires_grad_(), weight.dense().double().requires_grad_()
    y = conv2d(*exact, stride=conv.stride, padding=conv.padding)
    dy = torch.randn(y.shape, generator=generator)
    y.backward(dy.double())
    wanted = y.detach(), exact[0].grad, LAYOUTS[weight.layout].gather(weight, exact[1].grad)
    near = x.clone().requires_grad_(), weight.dense().requires_grad_()
    dense = conv2d(*near, stride=conv.stride, padding=conv.padding)
    dense.backward(dy)
    library = dense.detach(), near[0].grad, LAYOUTS[weight.layout].gather(weight, near[1].grad)
    with poisoned():
        got = passes.forward(x, value, None), passes.d_input(dy, value, tuple(x.shape)), passes.d_values(dy, x)
    for name, a, b, c in zip(("forward", "d_input", "d_values"), got, wanted, library, strict=True):
        limit = 4 * float((c - b).abs().max()) + 1e-5 * float(b.abs().max())
        assert float((a - b).abs().max()) <= limit, f"{name}: {float((a - b).abs().max())} > {limit}"


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """New memory holds NaN, so that what a kernel does not write is seen."""
    empty = torch.empty
    with mock.patch.object(torch, "empty", lambda *a, **k: empty(*a, **k).fill_(float("nan"))):
        yield


@pytest.fixture(params=flavour_names())
def flavour(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("CAMPFIRE_ISA", request.param)
    if native.library("blocks_forward") is None:
        pytest.skip("no compiler")
    return request.param


TILES = [(32, 4), (32, 1), (16, 4), (16, 1), (32, 16)]


@pytest.mark.parametrize("tile", TILES)
@pytest.mark.parametrize("order", [False, True])
def test_every_geometry(flavour: str, tile: tuple[int, int], order: bool) -> None:
    rows = torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(1)) if order else None
    for seed, ((taps, padding), stride) in enumerate(itertools.product(GEOMETRIES, (1, 2, 3))):
        box = (*tile, 1, 1) if seed % 4 == 3 and tile[1] < 16 else (*tile, taps, taps)
        for keep in list(masks(box, taps, seed).values())[: 4 if seed == 0 else 1]:
            passes_agree(packed(keep, box, rows, seed), Conv(stride, padding), SIZES[seed % len(SIZES)], seed)


@pytest.mark.parametrize("size", THIN)
def test_images_one_pixel_wide_or_high(flavour: str, size: tuple[int, int, int]) -> None:
    """No pixel has the other phase of the stride."""
    keep = masks((32, 4, 3, 3), 3, 0)["some"]
    passes_agree(packed(keep, (32, 4, 3, 3), None), Conv(2, 1), size)


@pytest.mark.parametrize("images", [1, 15, 16, 17])
def test_batches(images: int) -> None:
    keep = masks((32, 4, 3, 3), 3, 0)["some"]
    passes_agree(packed(keep, (32, 4, 3, 3), None), Conv(1, 1), (images, 6, 11))


@pytest.mark.parametrize("taps", [1, 3])
@pytest.mark.parametrize("order", [False, True])
def test_many_pixels(flavour: str, taps: int, order: bool) -> None:
    """Several strips a thread, and sums over parts of the pixels."""
    rows = torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(1)) if order else None
    passes_agree(
        packed(masks((32, 4, taps, taps), taps, 5)["some"], (32, 4, taps, taps), rows), Conv(1, taps // 2), (2, 61, 67)
    )


def test_orders_of_many_outputs(flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels are turned over where vectors would come from too many others."""
    monkeypatch.setattr(blocks, "MOVED", 0)
    rows = torch.randperm(SHAPE[0], generator=torch.Generator().manual_seed(1))
    for seed, (taps, padding) in enumerate(GEOMETRIES):
        box = (32, 4, taps, taps)
        passes_agree(
            packed(masks(box, taps, seed)["some"], box, rows, seed), Conv(1 + seed % 2, padding), (2, 9, 31), seed
        )


@pytest.mark.parametrize("channels", [1, 4, 20, 37])
def test_channels_that_are_no_multiple_of_a_vector(flavour: str, channels: int) -> None:
    for stride, taps in ((1, 1), (2, 1), (1, 3), (2, 3)):
        tile = (32, 4 if channels % 4 == 0 else 1, taps, taps)
        keep = _grown(torch.arange(channels // tile[1] * 2).view(2, -1, 1, 1) % 3 != 1, tile)
        passes_agree(packed(keep, tile, None), Conv(stride, taps // 2), (3, 9, 7))


@pytest.mark.parametrize("stride", [1, 2])
def test_pixels_a_power_of_two_apart(flavour: str, stride: int) -> None:
    """They would share a few sets of the first cache; narrow tiles hold more of them."""
    keep = _grown(torch.arange(128 * 4).view(4, -1, 1, 1) % 3 == 1, (16, 4, 1, 1))
    passes_agree(packed(keep, (16, 4, 1, 1), None), Conv(stride), (2, 9, 7))


def test_epilogue() -> None:
    weight = packed(masks((32, 4, 3, 3), 3, 0)["some"], (32, 4, 3, 3), torch.randperm(64))
    passes, x, bias = prepared(weight, Conv(1, 1)), torch.randn(2, 32, 5, 6), torch.randn(64)
    residual = torch.randn(2, 64, 5, 6)
    wanted = (conv2d(x, weight.dense(), bias, padding=1) + residual).relu()
    got = passes.forward(x, weight.parts["value"], bias, residual, relu=True)
    assert torch.allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize(("taps", "size"), [(3, (9, 12, 10)), (3, (1, 61, 67)), (1, (1, 12, 10)), (1, (2, 61, 67))])
def test_threads_agree_bit_for_bit(taps: int, size: tuple[int, int, int]) -> None:
    weight = packed(masks((32, 4, taps, taps), taps, 0)["some"], (32, 4, taps, taps), None)
    passes, before = prepared(weight, Conv(1, taps // 2)), torch.get_num_threads()
    x, dy, found = torch.randn(size[0], 32, *size[1:]), torch.randn(size[0], 64, *size[1:]), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            value = weight.parts["value"]
            found.append((passes.forward(x, value, None), passes.d_input(dy, value, x.shape), passes.d_values(dy, x)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_nan_and_infinity_reach_what_they_belong_to_only() -> None:
    weight = packed(masks((32, 1, 3, 3), 3, 2)["some"], (32, 1, 3, 3), None)
    passes, dy = prepared(weight, Conv(1, 1)), torch.zeros(1, 64, 9, 9)
    dy[0, :, 4, 4] = float("inf")
    dx = passes.d_input(dy, weight.parts["value"], (1, 32, 9, 9))
    assert not dx[0, :, 4, 4].isfinite().all()
    dx[0, :, 3:6, 3:6] = 0
    assert (dx == 0).all()


def test_other_dtypes_run_dense() -> None:
    weight = packed(masks((32, 4, 3, 3), 3, 0)["some"], (32, 4, 3, 3), None)
    passes, x = prepared(weight, Conv(1, 1)), torch.randn(2, 32, 5, 6, dtype=torch.float64)
    y = passes.forward(x, weight.parts["value"].double(), None)
    assert torch.allclose(y, conv2d(x, weight.dense().double(), padding=1))


def test_why_not() -> None:
    kernel, keep = KERNELS["blocks"], masks((8, 1, 1, 1), 1, 0)["some"]
    short = pack(torch.randn(64, 32, 1, 1), Mask(keep), "unit", tile=(8, 1, 1, 1))
    assert kernel.why_not(short, Conv(), torch.float32, CPU) == ["its vectors are 16 outputs; the tile has 8"]
    good = packed(masks((32, 4, 3, 3), 3, 0)["some"], (32, 4, 3, 3), None)
    assert "dilation" in kernel.why_not(good, Conv(dilation=2), torch.float32, CPU)[0]
    assert "float64" in kernel.why_not(good, Conv(), torch.float64, CPU)[0]
    csr = pack(torch.randn(64, 32, 1, 1), Mask(keep))
    assert kernel.why_not(csr, Conv(), torch.float32, CPU) == ["it reads unit and grouped, not csr"]


def test_phases_cover_every_pair_of_output_and_input() -> None:
    for stride, padding, taps in itertools.product((1, 2, 3), (0, 1, 2), (1, 2, 3, 5)):
        phases = Phases.of(Conv(stride, padding), (taps, taps)).phases
        assert sum(len(p.taps) for p in phases) == taps * taps
        for phase in phases:
            for tap, down, _ in phase.taps:  # output i + down reads input stride (i + down) - padding + r
                assert stride * down - padding + tap // taps == phase.h


@pytest.mark.parametrize(
    ("index", "part"), [(Entries, "channel"), (Entries, "tap"), (Sets, "channel"), (Sets, "source")]
)
def test_a_wrong_index_is_seen(index: type, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, built = packed(masks((32, 4, 3, 3), 3, 0)["some"], (32, 4, 3, 3), None), index.of

    def wrong(tiles: object) -> object:
        right = built(tiles)
        values = getattr(right, part)
        return dataclasses.replace(right, **{part: values.flip(0)})

    monkeypatch.setattr(index, "of", wrong)
    with pytest.raises(AssertionError, match=r"forward|d_"):
        passes_agree(weight, Conv(1, 1), (2, 7, 9))


def test_results_larger_than_the_caches() -> None:
    """They are written past the caches."""
    weight = packed(masks((32, 4, 1, 1), 1, 0)["some"], (32, 4, 1, 1), None)
    passes, value, generator = prepared(weight, Conv()), weight.parts["value"], torch.Generator().manual_seed(0)
    x, dy = (torch.randn(1, n, 371, 373, generator=generator) for n in (SHAPE[1], SHAPE[0]))
    with poisoned():
        y, dx = passes.forward(x, value, None), passes.d_input(dy, value, tuple(x.shape))
    dense = weight.dense().flatten(1)
    assert torch.allclose(y.flatten(2)[0], dense @ x.flatten(2)[0], atol=1e-4)
    assert torch.allclose(dx.flatten(2)[0], dense.T @ dy.flatten(2)[0], atol=1e-4)
