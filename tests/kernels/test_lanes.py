"""The lanes kernel as layers see it: every layout and memory format, the epilogue, and what it refuses."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire import native
from campfire.kernels import KERNELS, Conv
from campfire.kernels.formats import FORMATS, empty, is_format, to_format
from campfire.kernels.lanes import passes as lanes_passes
from campfire.kernels.lanes import ways as lanes_ways
from campfire.kernels.lanes.kernel import SIZES, LanePasses
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack

CPU = torch.device("cpu")
SHAPE = (16, 12, 3, 3)


@pytest.fixture(autouse=True)
def _native() -> None:
    if native.library("lanes") is None:
        pytest.skip("no compiler")


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory holds NaN, so that what a kernel does not write is seen."""
    for module in (lanes_passes, lanes_ways):
        monkeypatch.setattr(module, "empty", lambda *a: empty(*a).fill_(float("nan")))


def mask(layout: str, shape: tuple[int, ...] = SHAPE) -> Mask:
    """Tiles of 4 outputs, some filters gone, or scattered weights; whichever the layout holds."""
    generator = torch.Generator().manual_seed(0)
    tiles = layout in ("unit", "grouped")
    keep = torch.rand(shape[0] // 4, shape[1], 1, 1, generator=generator).expand(-1, -1, *shape[2:])
    keep = keep.repeat_interleave(4, 0) if tiles else torch.rand(shape, generator=generator)
    keep = keep < 0.4
    if layout == "shrunk":
        keep = torch.zeros(shape, dtype=torch.bool)
        keep[1:, ::2] = True
    if layout != "grouped":
        return Mask(keep)
    order = torch.randperm(shape[0], generator=generator)
    return Mask(torch.empty_like(keep).index_copy_(0, order, keep), {"order": order})


def packed(layout: str = "csr", shape: tuple[int, ...] = SHAPE) -> Packed:
    return pack(torch.randn(shape, generator=torch.Generator().manual_seed(1)), mask(layout, shape), layout)


def prepared(weight: Packed, conv: Conv) -> LanePasses:
    passes = KERNELS["lanes"].prepare(weight, conv)
    assert isinstance(passes, LanePasses)
    return passes


def image(*size: int, seed: int = 2) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def passes_agree(weight: Packed, conv: Conv, x: Tensor) -> None:
    exact = x.double().requires_grad_(), weight.dense().double().requires_grad_()
    y = conv2d(*exact, stride=conv.stride, padding=conv.padding)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(3))
    y.backward(dy.double())
    passes, value = prepared(weight, conv), weight.parts["value"]
    got = passes.forward(x, value, None), passes.d_input(dy, value, tuple(x.shape)), passes.d_values(dy, x)
    wanted = y.detach(), exact[0].grad, LAYOUTS[weight.layout].gather(weight, exact[1].grad)
    for name, a, b in zip(("forward", "d_input", "d_values"), got, wanted, strict=True):
        assert a.shape == b.shape, name
        assert float((a - b).abs().max()) <= 2e-6 * float(b.abs().max()) + 1e-5, name
    assert all(is_format(a, "chwn") for a in got[:2])


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("images", [3, 16, 20])
def test_every_layout(layout: str, images: int) -> None:
    passes_agree(packed(layout), Conv(1, 1), image(images, 12, 9, 7))


@pytest.mark.parametrize(
    ("images", "conv"), list(itertools.product([1, 2, 5, 8, 9], [Conv(1, 1), Conv(2, 1), Conv(3), Conv(1, 2)]))
)
@pytest.mark.parametrize("size", [(15, 13), (7, 7), (3, 4)])
def test_few_images(images: int, conv: Conv, size: tuple[int, int]) -> None:
    passes_agree(packed("tap"), conv, image(images, 12, *size))


@pytest.mark.parametrize("images", [1, 3, 16, 33])
@pytest.mark.parametrize("conv", [Conv(), Conv(2), Conv(1, 1)])
def test_pointwise(images: int, conv: Conv) -> None:
    passes_agree(packed("csr", (16, 12, 1, 1)), conv, image(images, 12, 5, 7))


def test_any_memory_format_gives_the_same() -> None:
    weight, x, residual = packed(), image(20, 12, 6, 5), image(20, 16, 6, 5)
    passes, bias = prepared(weight, Conv(1, 1)), image(16)
    wanted = (conv2d(x, weight.dense(), bias, padding=1) + residual).relu()
    found = [
        passes.forward(to_format(x, a), weight.parts["value"], bias, to_format(residual, b), relu=True)
        for a, b in itertools.product(FORMATS, FORMATS)
    ]
    assert all(torch.equal(y, found[0]) for y in found)
    assert torch.allclose(found[0], wanted, atol=1e-4)


def test_a_mask_without_survivors() -> None:
    weight = pack(torch.randn(SHAPE), Mask(torch.zeros(SHAPE, dtype=torch.bool)))
    passes, x, bias = prepared(weight, Conv(1, 1)), image(16, 12, 5, 5), image(16)
    y = passes.forward(x, weight.parts["value"], bias)
    assert torch.equal(y, bias[:, None, None].expand(16, 16, 5, 5))
    assert not passes.d_input(y, weight.parts["value"], tuple(x.shape)).any()
    assert passes.d_values(y, x).shape == (0,)


def test_no_images_and_other_dtypes_run_dense() -> None:
    weight = packed()
    passes = prepared(weight, Conv(1, 1))
    assert passes.forward(image(0, 12, 5, 5), weight.parts["value"], None).shape == (0, 16, 5, 5)
    x = image(3, 12, 5, 5).double()
    y = passes.forward(x, weight.parts["value"].double(), None)
    assert torch.allclose(y, conv2d(x, weight.dense().double(), padding=1))


def test_indices_are_kept_for_a_few_sizes() -> None:
    weight = packed()
    passes = prepared(weight, Conv(1, 1))
    for n in range(SIZES + 3):
        passes.forward(image(16, 12, 3 + n, 4), weight.parts["value"], None)
    assert len(passes._ways) == SIZES


def test_why_not() -> None:
    kernel, weight = KERNELS["lanes"], packed()
    assert kernel.why_not(weight, Conv(1, 1), torch.float32, CPU) == []
    assert "dilation" in kernel.why_not(weight, Conv(dilation=2), torch.float32, CPU)[0]
    assert "float64" in kernel.why_not(weight, Conv(), torch.float64, CPU)[0]
    large = pack(torch.randn(1, 1, 300, 300), Mask(torch.ones(1, 1, 300, 300, dtype=torch.bool)))
    assert "300x300" in kernel.why_not(large, Conv(), torch.float32, CPU)[0]
