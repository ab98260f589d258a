"""Patterns: which kernels get which, budgets by kernels, books that a mask may not break, and refusals."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campfire.errors import UsageError
from campfire.mask import Mask
from campfire.structures import books, named
from campfire.structures.pattern import Pattern


def masked(spec: str, score: torch.Tensor, sparsity: float) -> Mask:
    structure, alive = named(spec), torch.ones(score.shape, dtype=torch.bool)
    plan = structure.plan(score, sparsity)
    return Mask(structure.project(score, structure.count(tuple(score.shape), sparsity), plan, alive), plan)


def drawn(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 1e-3


def test_every_kernel_gets_the_best_pattern_of_the_book() -> None:
    score = drawn((8, 6, 3, 3))
    mask = masked("pattern:book=fixed8", score, 5 / 9)
    book = torch.tensor([books.pattern(n) for n in books.FIXED[:8]])
    for kernel, keep in zip(score.view(-1, 9), mask.keep.view(-1, 9), strict=True):
        assert torch.equal(keep, book[torch.stack([kernel[row].sum() for row in book]).argmax()])


def test_kernels_die_by_their_whole_sum() -> None:
    """ClickTrain ranks kernels by all their taps, those outside the pattern too."""
    score = torch.ones(1, 2, 3, 3)
    score[0, 0] = torch.tensor([[3.0, 3, 0], [3, 3, 0], [0, 0, 0]])
    score[0, 1] = 2.0
    keep = masked("pattern:book=fixed4", score, 1 - 4 / 18).keep
    assert keep[0].flatten(1).sum(1).tolist() == [0, 4]


def test_the_kernels_that_lose_least_take_a_pattern_first() -> None:
    score = drawn((4, 4, 3, 3), 1)
    keep = masked("pattern:book=fixed4", score, 0.3).keep.view(16, 9)
    book = torch.tensor([books.pattern(n) for n in books.FIXED[:4]])
    loss = (score.view(16, 1, 9) * ~book).sum(2).amin(1)
    thin = keep.sum(1) == 4
    assert int(thin.sum()) == math.floor(0.3 * 16 * 9 / 5)
    assert loss[thin].max() < loss[~thin].min()


def test_balanced_filters_hold_equally_many_kernels() -> None:
    score = drawn((8, 32, 3, 3)) * torch.arange(1, 9).view(8, 1, 1, 1)
    living = masked("pattern:balanced=true", score, 0.8).keep.flatten(2).any(2).sum(1)
    assert living.tolist() == [32 - math.floor((0.8 - 5 / 9) * 9 * 32 / 4 + 1e-9)] * 8
    free = masked("pattern", score, 0.8).keep.flatten(2).any(2).sum(1)
    assert len(set(free.tolist())) > 1


@given(
    shape=st.sampled_from([(64, 64, 3, 3), (12, 7, 3, 3), (64, 256, 1, 1)]),
    share=st.floats(0, 0.95),
    balanced=st.booleans(),
)
def test_a_share_of_dead_kernels_is_met_exactly(shape, share: float, balanced: bool) -> None:
    structure = Pattern(balanced=balanced)
    groups, kernels = (shape[0], shape[1]) if balanced else (1, shape[0] * shape[1])
    left = groups * (kernels - math.ceil(share * kernels - 1e-9))
    if left:
        assert structure.count(shape, structure.with_dead(shape, share)) == left * (4 if shape[2] == 3 else 1)


def test_no_share_of_kernels_leaves_nothing() -> None:
    for share in (1.0, -0.1, 0.999):
        with pytest.raises(UsageError, match="leaves some alive"):
            Pattern().with_dead((3, 3, 3, 3), share)


@given(seed=st.integers(0, 99), most=st.integers(1, 12), centre=st.booleans())
@settings(max_examples=20, deadline=None)
def test_auto_counts_the_winners_among_all_candidates(seed: int, most: int, centre: bool) -> None:
    kernels = drawn((40, 9), seed)
    every = torch.tensor([books.pattern(n) for n in range(1, 127)])
    scores = kernels @ every.float().t()
    if centre:
        scores[:, ~every[:, 4]] = -1
    votes = scores.argmax(1).bincount(minlength=126)
    book = books.winners(kernels, 4, most, centre)
    expected = votes.argsort(descending=True, stable=True)[:most]
    assert torch.equal(book, every[expected[votes[expected] > 0]])


def test_dead_kernels_have_no_vote() -> None:
    kernels = torch.zeros(9, 9)
    kernels[8, :4] = 1.0
    assert [books.rows(row) for row in books.winners(kernels, 4, 8).tolist()] == ["111/100/000"]


def test_1x1_layers_lose_whole_kernels_only() -> None:
    mask = masked("pattern", drawn((20, 10, 1, 1)), 0.35)
    assert (mask.plan, int(mask.keep.sum())) == ({}, 130)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda keep, book: (keep, book[:, :8]), "a book is bool"),
        (lambda keep, book: (keep, book | torch.eye(len(book), 9).bool()), "has 4 entries; got"),
        (lambda keep, book: (keep, book[[0, 0]]), "two patterns of the book are equal"),
        (lambda keep, book: (keep, book[:1]), "taps of no pattern"),
        (lambda keep, book: (keep, torch.cat([book, ~book])), "a book is bool"),
        (lambda keep, book: (keep.index_fill(0, torch.tensor([0]), True), book), "others have no pattern yet"),
    ],
)
def test_what_is_no_mask_of_patterns(spoil, reason: str) -> None:
    mask = masked("pattern:book=auto:6", drawn((8, 8, 3, 3)), 0.7)
    assert not named("pattern:book=auto:6").why_invalid(mask)
    keep, book = spoil(mask.keep.clone(), mask.plan["book"].clone())
    assert reason in "; ".join(named("pattern:book=auto:6").why_invalid(Mask(keep, {"book": book})))


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("pattern:book=fixed5", "a book is fixed4, fixed8, fixed12, auto:N"),
        ("pattern:book=auto:0", "a book is fixed4"),
        ("pattern:book=fixed4,entries=5", "holds patterns of 4 of 3x3 taps"),
        ("pattern:book=3+200", "numbers from 1 to 126; got 200"),
        ("pattern:book=3+3", "names a pattern twice"),
        ("pattern:book=fixed8,centre=true", "leaves the middle tap out"),
        ("pattern:entries=9", "not all of them"),
        ("pattern:size=1,entries=1", "2 to 7"),
        ("pattern:size=2,entries=2,centre=true", "no middle tap"),
    ],
)
def test_books_that_cannot_be_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        named(spec)
