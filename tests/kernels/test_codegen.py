"""Generated code against float64, in every flavour and pass; what it refuses, and what runs where it cannot be compiled."""

import warnings

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire import native
from campfire.errors import NoNative
from campfire.kernels import KERNELS, Conv, serving
from campfire.kernels.codegen import flat_way
from campfire.kernels.codegen import passes as codegen_passes
from campfire.kernels.codegen.book import Book
from campfire.kernels.codegen.flat import SUMS, Flat, FlatNeed, cut, flat_ahead
from campfire.kernels.codegen.flat_index import FlatIndex
from campfire.kernels.codegen.index import PatternIndex
from campfire.kernels.codegen.plan import Need, heights, tiled
from campfire.kernels.codegen.source import Tiles, reads
from campfire.kernels.formats import empty, is_format, to_format
from campfire.kernels.lanes import passes as lanes_passes
from campfire.kernels.lanes import ways as lanes_ways
from campfire.kernels.lanes.plan import Geometry, Pass
from campfire.kernels.lanes.plan import reads as reads_ahead
from campfire.mask import Mask
from campfire.native.flavours import flavour_names
from campfire.packed import LAYOUTS, Packed, pack

CPU = torch.device("cpu")
BOOK = torch.tensor([[1, 1, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0, 0, 1]]).bool()


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quickly compiled, and the same for all layers here; new memory holds NaN."""

    def tile(need: Need) -> Pass:
        return tiled(need.walk, 2, 3, lines=60)

    def pixels(need: FlatNeed) -> Flat:
        return cut(need.walk, need.lanes, 2, 4)

    monkeypatch.setattr(Need, "chosen", tile)
    monkeypatch.setattr(FlatNeed, "chosen", pixels)
    for module in (codegen_passes, flat_way, lanes_passes, lanes_ways):
        monkeypatch.setattr(module, "empty", lambda *a: empty(*a).fill_(float("nan")))


def patterned(outputs: int = 10, inputs: int = 7, seed: int = 0) -> Packed:
    """Every third kernel dead, an output and an input without any."""
    generator = torch.Generator().manual_seed(seed)
    keep = BOOK[torch.randint(3, (outputs, inputs), generator=generator)].view(outputs, inputs, 3, 3).clone()
    keep &= torch.rand(outputs, inputs, 1, 1, generator=generator) < 0.67
    keep[1], keep[:, 2] = False, False
    return pack(torch.randn(keep.shape, generator=generator), Mask(keep), "tap")


def image(*size: int, seed: int = 2) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def passes_agree(weight: Packed, conv: Conv, x: Tensor) -> None:
    found = []
    for dtype in (torch.float64, torch.float32):
        exact = x.to(dtype).requires_grad_(), weight.dense().to(dtype).requires_grad_()
        y = conv2d(*exact, stride=conv.stride, padding=conv.padding)
        dy = image(*y.shape, seed=3)
        y.backward(dy.to(dtype))
        found.append((y.detach(), exact[0].grad, LAYOUTS[weight.layout].gather(weight, exact[1].grad)))  # pyright: ignore
    passes, value = KERNELS["codegen"].prepare(weight, conv), weight.parts["value"]
    got = passes.forward(x, value, None), passes.d_input(dy, value, tuple(x.shape)), passes.d_values(dy, x)
    for name, ours, exact, dense in zip(("forward", "d_input", "d_values"), got, *found, strict=True):
        limit = 6 * float((dense - exact).abs().max()) + 2e-6 * float(exact.abs().max())
        assert float((ours - exact).abs().max()) <= limit, name
    assert all(is_format(ours, "chwn") for ours in got[:2])


@pytest.mark.parametrize("isa", flavour_names())
def test_passes_in_every_flavour(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_ISA", isa)
    if native.library("lanes") is None:
        pytest.skip("no compiler")
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoNative)
        passes_agree(patterned(), Conv(1, 1), image(17, 7, 8, 8))
        passes_agree(patterned(), Conv(1, 1), image(1, 7, 8, 8))


@pytest.fixture
def compiler() -> None:
    if native.library("lanes") is None:
        pytest.skip("no compiler")


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (Conv(1, 0), (16, 7, 6, 4)),
        (Conv(1, 2), (33, 7, 4, 8)),
        *((Conv(1, padding), (images, 7, 5, 9)) for padding, images in ((0, 1), (1, 8), (2, 3))),
        (Conv(1, 1), (1, 7, 1, 3)),
        (Conv(1, 3), (1, 7, 4, 4)),
    ],
)
def test_other_sizes(conv: Conv, size: tuple[int, ...]) -> None:
    passes_agree(patterned(), conv, image(*size))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("images", [1, 16])
def test_the_epilogue(images: int) -> None:
    weight, x, bias, residual = patterned(), image(images, 7, 8, 8), image(10), image(images, 10, 8, 8)
    y = KERNELS["codegen"].prepare(weight, Conv(1, 1)).forward(x, weight.parts["value"], bias, residual, relu=True)
    assert torch.allclose(y, (conv2d(x, weight.dense(), bias, padding=1) + residual).relu(), atol=1e-4)


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("images", [1, 16])
def test_threads_agree_bit_for_bit(images: int) -> None:
    weight, x, dy, found = patterned(), image(images, 7, 8, 8), image(images, 10, 8, 8), []
    value, before = weight.parts["value"], torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            passes = KERNELS["codegen"].prepare(weight, Conv(1, 1))
            found.append((passes.forward(x, value, None), passes.d_input(dy, value, (images, 7, 8, 8))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.usefixtures("compiler")
def test_chunks_agree_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many outputs share a chunk depends on the number of threads."""
    weight, x, dy, found = patterned(), image(1, 7, 8, 8), image(1, 10, 8, 8), []
    for chunk in (1, 4, 10):
        monkeypatch.setattr(FlatNeed, "chosen", lambda need, chunk=chunk: cut(need.walk, need.lanes, 2, chunk))
        passes, value = KERNELS["codegen"].prepare(weight, Conv(1, 1)), weight.parts["value"]
        found.append((passes.forward(x, value, None), passes.d_input(dy, value, (1, 7, 8, 8))))
    assert all(torch.equal(a, b) for others in found[1:] for a, b in zip(found[0], others, strict=True))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("images", [1, 16])
def test_code_that_does_not_compile_is_done_without(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codegen_passes, "_text", lambda tiles: f"no C++ {images}\n")
    monkeypatch.setenv("CAMPFIRE_NATIVE", "1")
    weight = patterned(8 + images)
    with pytest.warns(NoNative, match=f"a patterned 7->{8 + images} 3x3/1 @8x5 layer") as told:
        passes_agree(weight, Conv(1, 1), image(images, 7, 8, 5))
    assert len(told) == 1


def test_kernels_are_listed_pattern_by_pattern() -> None:
    weight = patterned()
    index = PatternIndex(LAYOUTS["tap"].positions(weight), Geometry(16, 7, 8, 8, 10, 3, 3, padding=1))
    filters, book = index.ahead, index.book
    assert filters.count.long().sum() == len(filters.entry) == len(book.kernel) == filters.start[-1]
    assert sorted(filters.count.long().sum(0).tolist()) == sorted(torch.bincount(book.pattern).tolist())
    assert torch.equal(filters.count.long().sum(1).int(), filters.start.diff())
    sizes = book.patterns.sum(1)[book.pattern]
    assert torch.equal(filters.which.sort().values, (sizes.cumsum(0) - sizes).int())
    assert torch.equal(index.back.which.sort().values, filters.which.sort().values)
    assert int(filters.entry.long().max()) < filters.walk.block * filters.walk.lines


def test_few_images_list_kernels_by_what_they_read() -> None:
    weight = patterned()
    index = FlatIndex(LAYOUTS["tap"].positions(weight), Geometry(1, 7, 8, 8, 10, 3, 3, padding=1))
    for filters, inputs in ((index.ahead, 7), (index.back, 10)):
        walk = filters.walk
        assert isinstance(walk, Flat)
        assert filters.count.shape == (walk.chunks * inputs, 3)
        assert torch.equal(filters.count.long().sum(1).int(), filters.start.diff())
        assert int(filters.entry.long().max()) == (walk.chunk - 1) * walk.widest
    kernels = len(index.book.kernel)
    assert torch.equal(index.ahead.which[:kernels].sort().values, index.back.which[:kernels].sort().values)


@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("size", [(1, 64, 56), (1, 512, 7), (8, 9, 5), (1, 3, 1)])
def test_cuts_for_few_images_fit_registers_cache_and_map(size: tuple[int, int, int], lanes: int) -> None:
    images, channels, side = size
    for most in (1, 4, 9):
        need = FlatNeed(flat_ahead(Geometry(images, channels, side, side, channels, 3, 3, 1, 1)), most, 0.5, lanes)
        for walk in need.candidates().values():
            assert walk.widest * (most + 1) < (32 if lanes == 16 else 16) - 2
            assert walk.chunk * walk.widest * lanes <= 2 * SUMS * 16
            assert sum(walk.sizes[-1:]) == walk.widest
            reach = 2 * (side + 1) * images + 2 * images + walk.vectors * lanes
            assert walk.plane >= max(reach, (side + 1) * (side + 1) * images)
            assert walk.plane // lanes % 2


def test_a_book_is_what_the_mask_has() -> None:
    weight = patterned()
    book = Book.of(LAYOUTS["tap"].positions(weight), 9)
    assert {tuple(p) for p in book.patterns.tolist()} == {tuple(p) for p in BOOK.tolist()}
    assert torch.equal(book.kernel.int(), weight.parts["kernel"])


def test_every_product_stands_once_and_lines_are_read_once() -> None:
    tiles = Tiles(((0, 1, 5, 6),), (("x x .", "x x .", ". . ."),), (2, 3), 3, 5)
    text = tiles.source()
    assert text.count("+=") == 4 * 3 * (2 + 3)
    assert "0: x x ." in text
    lines = [line for line, _ in reads((0, 1, 5, 6), 3, 3, 5)]
    assert len(lines) == len(set(lines)) == 4 * 4


def test_tiles_fit_the_registers_and_the_image() -> None:
    for size in (7, 14, 56, 2, 5):
        walk = Need(reads_ahead(Geometry(16, 64, size, size, 64, 3, 3, 1, 1), False), 4, 4, 0.5, 16).chosen()
        assert walk.rows * walk.cols <= 26
        assert max(heights(walk)) == walk.rows
        assert walk.blocks * walk.block >= 64


def test_why_not() -> None:
    kernel, weight = KERNELS["codegen"], patterned()
    if native.library("lanes") is not None:
        assert kernel.why_not(weight, Conv(1, 1), torch.float32, CPU) == []
        assert serving(weight, Conv(1, 1), torch.float32, CPU) is kernel
        window = pack(torch.randn(64, 64, 3, 3), Mask(torch.rand(64, 64, 3, 3) < 0.5), "csr")
        assert "patterns of taps" in kernel.why_not(window, Conv(), torch.float32, CPU)[0]
        point = pack(torch.randn(4, 4, 1, 1), Mask(torch.ones(4, 4, 1, 1).bool()), "csr")
        assert "stride" in kernel.why_not(weight, Conv(2, 1), torch.float32, CPU)[0]
        assert "got 1x1" in kernel.why_not(point, Conv(), torch.float32, CPU)[0]
        dead = pack(torch.randn(4, 4, 3, 3), Mask(torch.zeros(4, 4, 3, 3).bool()), "csr")
        assert "got 0" in kernel.why_not(dead, Conv(), torch.float32, CPU)[0]
    assert "float64" in kernel.why_not(weight, Conv(), torch.float64, CPU)[0]
    unit = pack(torch.randn(32, 4, 3, 3), Mask(torch.ones(32, 4, 3, 3).bool()), "unit")
    assert "not unit" in kernel.why_not(unit, Conv(), torch.float32, CPU)[0]


def test_lanes_take_what_is_cut_into_any_format() -> None:
    if native.library("lanes") is None:
        pytest.skip("no compiler")
    weight, x = patterned(), image(16, 7, 8, 8)
    passes = KERNELS["codegen"].prepare(weight, Conv(1, 1))
    found = [passes.forward(to_format(x, f), weight.parts["value"], None) for f in ("nhwc", "chwn")]
    assert torch.equal(*found)
