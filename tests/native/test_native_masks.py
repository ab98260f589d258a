"""Native masks equal those of torch bit for bit, in every flavour and with any number of threads."""

import math

import pytest
import torch
from hypothesis import given, settings
from native_cases import UGLY, bits, by_torch, outcome, rows, same, scores, threaded
from torch import Tensor

from campfire.errors import CampfireError
from campfire.native import masks
from campfire.selection import keep_best, keep_best_rows, ranks

pytestmark = pytest.mark.usefixtures("flavour")


@settings(max_examples=200)
@given(scores())
def test_the_best(case: tuple[Tensor, int, Tensor | None]) -> None:
    assert same(keep_best(*case), by_torch(keep_best, *case))


@settings(max_examples=200)
@given(scores(UGLY))
def test_the_best_of_what_no_score_should_be(case: tuple[Tensor, int, Tensor | None]) -> None:
    assert same(outcome(keep_best, *case), by_torch(keep_best, *case))


@settings(max_examples=200)
@given(rows())
def test_rows(case: tuple[Tensor, int, Tensor | None]) -> None:
    assert same(keep_best_rows(*case), by_torch(keep_best_rows, *case))
    assert same(ranks(case[0]), by_torch(ranks, case[0]))


def drawn(n: int, kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    normal = torch.randn(n, generator=generator).abs()
    return {
        "normal": normal,
        "few values": (normal * 4).round() / 4,
        "one value": torch.full((n,), 0.25),
        "rising": torch.arange(n, dtype=torch.float32),
        "one bin": 1 + normal.clamp(max=1) * 1e-3,
    }[kind]


@pytest.mark.parametrize("kind", ["normal", "few values", "one value", "rising", "one bin"])
@pytest.mark.parametrize("n", [1024, 65536, 65537, 200_003])
def test_the_best_of_many_with_any_number_of_threads(n: int, kind: str) -> None:
    score = drawn(n, kind)
    before = drawn(n + 1, "normal")[1:] > 0.3
    for count, alive in ((n // 3, None), (n // 10, before), (int(before.sum()) - 1, before), (1, before)):
        wanted = by_torch(keep_best, score, count, alive)
        assert same(threaded(1, keep_best, score, count, alive), wanted)
        assert same(threaded(2, keep_best, score, count, alive), wanted)
        assert same(threaded(5, keep_best, score, count, alive), wanted)


@pytest.mark.parametrize("t", [4, 7, 9, 25])
def test_rows_with_any_number_of_threads(t: int) -> None:
    score = drawn(t * 20_001, "few values").view(-1, t)
    alive = drawn(score.numel() + 1, "normal")[1:].view(-1, t) > 0.3
    wanted = by_torch(keep_best_rows, score, 2, alive), by_torch(ranks, score)
    for threads in (1, 2):
        assert same(threaded(threads, keep_best_rows, score, 2, alive), wanted[0])
        assert same(threaded(threads, ranks, score), wanted[1])


def test_other_tensors_are_left_to_torch() -> None:
    x = torch.rand(8, 9)
    assert masks.keep_best(x[0], 3, None) is not None
    for other in (x.double(), x.half(), x.to("meta"), torch.rand(3, 65), torch.rand(0, 9)):
        assert masks.keep_best_rows(other, 3, None) is None
    assert masks.keep_best(x[0].double(), 3, None) is None


def test_refusals_are_worded_by_torch() -> None:
    score, few = torch.rand(70_000), torch.arange(70_000) < 4
    assert masks.keep_best(score, 5, few) is None
    with pytest.raises(CampfireError, match="cannot keep 5 of 4 living entries"):
        keep_best(score, 5, few)
    for count in (0, 4):
        assert same(keep_best(score, count, few), by_torch(keep_best, score, count, few))
        assert masks.keep_best(score, count, few) is not None
    with pytest.raises(CampfireError, match="NaN"):
        keep_best(torch.full((9,), math.nan), 4)


def test_strided_scores_are_served() -> None:
    score, alive = torch.rand(9, 40).t(), torch.rand(9, 40).t() > 0.2
    assert same(keep_best_rows(score, 3, alive), by_torch(keep_best_rows, score, 3, alive))
    column = torch.rand(50, 3)[:, 1]
    assert same(keep_best(column, 7, column > 0.2), by_torch(keep_best, column, 7, column > 0.2))


@pytest.mark.parametrize("threads", [1, 2])
def test_multiplication_of_any_floats(threads: int) -> None:
    sizes, work, wanted = [1, 7, 16, 33, 16384, 100_001], [], []
    for i, n in enumerate(sizes):
        keep = torch.rand(n, generator=torch.Generator().manual_seed(i)) < 0.4
        tensors = [bits(n, i + k) for k in range(i % 3 + 1)]
        wanted += [(x * keep.float()).view(torch.int32) for x in tensors]
        work.append((keep, tensors))
    multiply = masks.multiplication(work)
    assert multiply is not None
    assert threaded(threads, lambda: multiply() or torch.ones(1)) == torch.ones(1)
    assert all(
        torch.equal(x.view(torch.int32), w) for x, w in zip((x for _, xs in work for x in xs), wanted, strict=True)
    )


def test_multiplication_tells_autograd() -> None:
    x = torch.rand(4, requires_grad=True)
    y = x.exp()
    multiply = masks.multiplication([(torch.ones(4, dtype=torch.bool), [y])])
    assert multiply is not None
    multiply()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_multiplication_keeps_its_memory() -> None:
    x = torch.ones(1 << 20)
    address, multiply = x.data_ptr(), masks.multiplication([(torch.zeros(1 << 20, dtype=torch.bool), [x])])
    x.data = torch.ones(1 << 20)
    assert torch.ones(1 << 20).data_ptr() != address
    assert multiply is not None
    multiply()
    assert x.sum() == 1 << 20
