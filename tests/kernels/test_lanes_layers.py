"""The layers between convolutions in the batch-lane layout, against torch in float64."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from campfire import native
from campfire.kernels import lanes_layers as layers

SIZES = [(1, 3, 5, 7), (16, 17, 4, 4), (17, 16, 9, 3), (33, 40, 2, 6)]  # images, channels, height, width
POOLS = [(3, 2, 1), (2, 2, 0), (3, 1, 1)]  # taps, stride, padding


@pytest.fixture(autouse=True)
def _native() -> None:
    if native.library("lanes_layers") is None:
        pytest.skip("no compiler")


def image(size: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def near(got: Tensor, exact: Tensor, share: float = 1e-5) -> None:
    assert float((got.double() - exact).abs().max()) <= share * float(exact.abs().max())


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(size: tuple[int, ...]) -> None:
    for x in (image(size), image(size).contiguous(memory_format=torch.channels_last)):
        packed = layers.pack(x)
        assert packed.shape == (-(-size[0] // 16), *size[1:], 16)
        assert not packed[-1, ..., (size[0] - 1) % 16 + 1 :].any()
        for form in (torch.contiguous_format, torch.channels_last):
            back = layers.unpack(packed, size[0], form)
            assert torch.equal(back, x)
            assert back.is_contiguous(memory_format=form)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("with_residual", "relu"), list(itertools.product((False, True), (False, True))))
def test_batch_normalisation(size: tuple[int, ...], with_residual: bool, relu: bool) -> None:
    x, residual, dy = image(size), image(size, 1), image(size, 2)
    weight, bias = torch.arange(1.0, size[1] + 1) / size[1], 0.5 - torch.arange(1.0, size[1] + 1) / size[1]
    exact = [t.double().requires_grad_() for t in (x, weight, bias, residual)]
    y = F.batch_norm(exact[0], None, None, exact[1], exact[2], training=True)
    y = y + exact[3] if with_residual else y
    y = y.relu() if relu else y
    y.backward(dy.double())
    packed, added = layers.pack(x), layers.pack(residual) if with_residual else None
    got = layers.norm(packed, size[0], weight, bias, residual=added, relu=relu)
    kept = got.y if with_residual else None
    back = layers.norm_back(layers.pack(dy), packed, size[0], got.mean, got.variance, weight, bias, y=kept, relu=relu)
    near(layers.unpack(got.y, size[0]), y.detach())
    found = [layers.unpack(back.x, size[0]), back.weight, back.bias]
    for a, b in zip(found, exact, strict=False):
        near(a, b.grad, 1e-4)
    if with_residual:
        near(layers.unpack(back.residual, size[0]), exact[3].grad)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pool", POOLS)
def test_max_pool_with_ties(size: tuple[int, ...], pool: tuple[int, int, int]) -> None:
    x = (image(size) * 2).round().requires_grad_()
    if min(size[2:]) + 2 * pool[2] < pool[0]:
        return
    y = F.max_pool2d(x, *pool)
    dy = image(tuple(y.shape), 3)
    y.backward(dy)
    got, taken = layers.max_pool(layers.pack(x.detach()), *pool)
    assert torch.equal(layers.unpack(got, size[0]), y)
    shape = layers.pack(x.detach()).shape
    near(layers.unpack(layers.max_pool_back(layers.pack(dy), taken, shape, *pool), size[0]), x.grad)


@pytest.mark.parametrize("size", SIZES)
def test_mean(size: tuple[int, ...]) -> None:
    packed = layers.pack(image(size))
    mean = layers.mean(packed)
    near(layers.unpack(mean, size[0]), image(size).double().mean((2, 3), keepdim=True))
    spread = layers.mean_back(mean, *size[2:])
    near(spread, (mean / (size[2] * size[3])).expand(spread.shape).double())
