import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from campfire.errors import CampfireError
from campfire.selection import (
    _keep_best,
    _ranks_by_counting,
    _ranks_by_sorting,
    guarded_floor,
    keep_best,
    keep_best_rows,
    ranks,
)


def obvious(score: list[float], count: int, alive: list[bool]) -> list[bool]:
    """Sort by (score, index), keep the last ``count`` of the living."""
    order = sorted((i for i in range(len(score)) if alive[i]), key=lambda i: (score[i], i))
    best = set(order[len(order) - count :])
    return [i in best for i in range(len(score))]


@st.composite
def cases(draw):
    score = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0]), min_size=1, max_size=40))
    alive = draw(st.lists(st.booleans(), min_size=len(score), max_size=len(score)))
    return score, draw(st.integers(0, sum(alive))), alive


@given(cases())
def test_keep_best_equals_the_obvious_way(case) -> None:
    score, count, alive = case
    got = keep_best(torch.tensor(score), count, torch.tensor(alive))
    assert got.tolist() == obvious(score, count, alive)


@given(cases())
def test_the_way_of_other_devices_gives_equal_masks(case) -> None:
    score, count, alive = case
    keep, refused = _keep_best(torch.tensor(score), count, torch.tensor(alive))
    assert keep.tolist() == obvious(score, count, alive)
    assert refused.tolist() == [0]


@given(cases())
def test_rows_equal_the_obvious_way(case) -> None:
    score, count, alive = case
    rows, living = torch.tensor([score, score[::-1]]), torch.tensor([alive, alive[::-1]])
    for n in (count, min(count, 2)):
        got = keep_best_rows(rows, n, living)
        assert got.tolist() == [obvious(s, n, a) for s, a in zip(rows.tolist(), living.tolist(), strict=True)]


def test_long_rows_equal_short_ones() -> None:
    torch.manual_seed(0)
    score = torch.randint(0, 9, (5, 90)).float()
    assert keep_best_rows(score, 30).tolist() == [obvious(r, 30, [True] * 90) for r in score.tolist()]


def test_ranks_are_a_permutation() -> None:
    score = torch.randint(0, 3, (100, 9)).float()
    assert torch.equal(ranks(score).sort(0).values, torch.arange(9, dtype=torch.uint8)[:, None].expand(9, 100))


@pytest.mark.parametrize("length", [1, 2, 9, 64])
def test_ranks_by_sorting_are_those_by_counting(length: int) -> None:
    score = torch.randint(0, 5, (300, length), generator=torch.Generator().manual_seed(length)).float()
    sorted_, counted = _ranks_by_sorting(score), _ranks_by_counting(score)
    assert torch.equal(sorted_, counted)
    assert (sorted_.dtype, sorted_.is_contiguous()) == (counted.dtype, True)


def test_ranks_of_very_long_rows() -> None:
    score = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    assert ranks(score).tolist() == (-score).argsort(1).argsort(1).t().tolist()


def test_it_never_revives_and_refuses_nan() -> None:
    with pytest.raises(CampfireError, match="never revive"):
        keep_best(torch.ones(3), 2, torch.tensor([True, False, False]))
    with pytest.raises(CampfireError, match="NaN"):
        keep_best(torch.full((4,), float("nan")), 2)


def test_floor_is_guarded_against_binary_fractions() -> None:
    assert [guarded_floor(x) for x in (0.7 * 10, 0.29 * 100, 2.5, 0.0)] == [7, 29, 2, 0]
