"""Native walks through weights and their masks equal what torch makes, in both memory formats."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_cases import SPECIAL, bits, by_torch, outcome, rows, same
from torch import Tensor

from campfire.native import masks
from campfire.scores import magnitude
from campfire.selection import keep_best, row_bests
from campfire.structures.window import thin

pytestmark = pytest.mark.usefixtures("flavour")
LAST = torch.channels_last
SHAPES = st.sampled_from([(1, 1, 3, 3), (16, 8, 3, 3), (7, 5, 3, 2), (33, 17, 1, 1), (4, 3, 7, 7), (64, 40, 3, 3)])


def floats(shape: tuple[int, ...], seed: int) -> Tensor:
    return bits(max(math.prod(shape), 10), seed)[: math.prod(shape)].view(shape)


def coarse(shape: tuple[int, ...], seed: int, share: float) -> tuple[Tensor, Tensor]:
    """A weight with many ties, and a mask."""
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(shape, generator=generator) * 4).round() / 4
    return weight, torch.rand(shape, generator=generator) < share


def identical(a: Tensor, b: Tensor) -> bool:
    """NaN included, and what it is made of."""
    return a.stride() == b.stride() and torch.equal(a.contiguous().view(torch.int32), b.contiguous().view(torch.int32))


@given(SHAPES, st.integers(0, 99))
def test_magnitudes(shape: tuple[int, ...], seed: int) -> None:
    weight = floats(shape, seed).contiguous(memory_format=LAST)
    found, wanted = magnitude(weight), by_torch(magnitude, weight)
    assert isinstance(wanted, Tensor)
    assert identical(found.contiguous(), wanted.contiguous())
    assert (masks.magnitudes(weight) is None) == weight.is_contiguous()


def test_magnitudes_that_autograd_follows() -> None:
    weight = torch.randn(8, 8, 3, 3).contiguous(memory_format=LAST).requires_grad_()
    magnitude(weight).sum().backward()
    assert weight.grad is not None
    assert torch.equal(weight.grad, weight.detach().sign())


@given(rows(SPECIAL))
def test_row_bests(case: tuple[Tensor, int, Tensor | None]) -> None:
    score, _, alive = case
    alive = torch.ones_like(score, dtype=torch.bool) if alive is None else alive
    assert all(map(same, row_bests(score, alive), by_torch(row_bests, score, alive)))
    odd = torch.full((3, 9), 0.5).index_put((torch.tensor([1]), torch.tensor([4])), torch.tensor(math.nan))
    assert row_bests(odd, torch.ones(3, 9, dtype=torch.bool))[0].isnan().tolist() == [False, True, False]


@settings(max_examples=60)
@given(SHAPES, st.integers(0, 99), st.floats(0.1, 1), st.floats(0, 1), st.floats(0, 1))
def test_thin(shape: tuple[int, ...], seed: int, share: float, stays: float, wanted: float) -> None:
    weight, alive = coarse(shape, seed, share)
    kernels = torch.rand(shape[0] * shape[1], generator=torch.Generator().manual_seed(seed)) < stays
    held = alive.sum((2, 3)).flatten() * kernels
    case = weight.abs(), int(wanted * int(held.sum())), alive, held
    keep = outcome(thin, *case)
    assert same(keep, by_torch(thin, *case))
    assert isinstance(keep, Tensor)
    assert int(keep.sum()) == case[1]
    assert not (keep & ~(alive & kernels.view(*shape[:2], 1, 1))).any()


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@given(SHAPES, st.integers(0, 99), st.booleans(), st.floats(0, 1))
def test_the_largest(last: bool, shape: tuple[int, ...], seed: int, before: bool, wanted: float) -> None:
    weight, alive = coarse(shape, seed, 0.6)
    taps = shape[2] * shape[3]
    for grain in {1, taps}:
        lives = alive if grain == 1 else alive[:, :, :1, :1].expand(shape).contiguous()
        living = lives if before else torch.ones_like(lives)
        count = int(wanted * int(living.sum()) / grain) * grain
        units = weight.abs() if grain == 1 else weight.abs().amax((2, 3))
        flat = living if grain == 1 else living[:, :, 0, 0]
        best = keep_best(units.flatten(), count // grain, flat.flatten()).view(units.shape)
        given = weight.contiguous(memory_format=LAST) if last else weight
        found = masks.keep_largest(given, living if before else None, count, grain)
        assert found is not None
        assert torch.equal(found, best if grain == 1 else best[:, :, None, None].expand(shape))


def test_the_largest_of_what_has_diverged_is_left_to_torch() -> None:
    assert masks.keep_largest(torch.full((4, 3, 3, 3), math.nan), None, 18, 9) is None
    assert masks.keep_largest(torch.randn(4, 3, 3, 3), torch.zeros(4, 3, 3, 3, dtype=torch.bool), 9, 9) is None
    assert masks.keep_largest(torch.randn(4, 3, 3, 3, dtype=torch.float64), None, 9, 9) is None


@given(SHAPES, st.integers(0, 99))
def test_a_mask_in_the_order_of_its_weight(shape: tuple[int, ...], seed: int) -> None:
    keep = coarse(shape, seed, 0.5)[1]
    found = masks.channels_last(keep)
    assert found.is_contiguous(memory_format=LAST)
    assert torch.equal(found, keep)


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@given(SHAPES, st.integers(0, 99))
def test_a_product(last: bool, shape: tuple[int, ...], seed: int) -> None:
    order = LAST if last else torch.contiguous_format
    x = floats(shape, seed).contiguous(memory_format=order)
    mask = coarse(shape, seed, 0.5)[1].contiguous(memory_format=order)
    found = masks.product(x, mask)
    assert found is not None
    assert identical(found, x * mask.float())


def test_a_product_of_what_lies_otherwise_is_left_to_torch() -> None:
    x, mask = torch.randn(4, 3, 3, 3), torch.ones(4, 3, 3, 3, dtype=torch.bool)
    assert masks.product(x, mask.contiguous(memory_format=LAST)) is None
    assert masks.product(x.double(), mask) is None
    assert masks.product(x[:, :2], mask[:, :2]) is None
    assert masks.product(x.requires_grad_(), mask) is None


@given(st.integers(1, 70_000), st.integers(0, 99), st.floats(0, 1))
def test_multiplication_of_what_was_multiplied_before(n: int, seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    was = torch.rand(n, generator=generator) < 0.7
    keep = was & (torch.rand(n, generator=generator) < share)
    x = torch.randn(n, generator=generator)
    given, wanted = x * was, x * keep
    multiply = masks.multiplication([(keep, [given])], [was])
    assert multiply is not None
    multiply()
    assert torch.equal(given, wanted)
