"""Centroids: a fixed point of Lloyd's rounds, near the best there is, and exact where there is nothing to lose."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from campfire.quantise.kmeans import centroids_of, nearest

FLOATS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=60)


def spread(values: np.ndarray, table: np.ndarray) -> float:
    return float(((values - table[nearest(values, table)]) ** 2).sum())


def best(values: np.ndarray, clusters: int) -> float:
    """The least sum of squares over all cuts of the sorted values."""
    x = np.sort(values)
    cuts = itertools.combinations(range(1, len(x)), min(clusters, len(x)) - 1)
    return min(sum(((part - part.mean()) ** 2).sum() for part in np.split(x, cut)) for cut in cuts)


@given(FLOATS, st.integers(1, 9))
def test_a_value_has_the_nearest_centroid_and_a_centroid_is_the_mean_of_its_values(
    values: list[float], clusters: int
) -> None:
    x = np.array(values)
    table = centroids_of(x, clusters)
    codes = nearest(x, table)
    assert 1 <= len(table) <= clusters
    assert (np.diff(table) > 0).all()
    np.testing.assert_array_equal(np.abs(x - table[codes]), np.abs(x[:, None] - table).min(1))
    for i, centroid in enumerate(table):
        assert centroid == pytest.approx(x[codes == i].mean(), rel=1e-6, abs=1e-6)


@given(FLOATS)
def test_no_more_distinct_values_than_clusters_are_kept_exactly(values: list[float]) -> None:
    x = np.array(values)
    assert spread(x, centroids_of(x, len(set(values)))) == 0


@pytest.mark.parametrize("seed", range(6))
def test_near_the_best_of_all_cuts(seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(16)
    assert best(x, 3) <= spread(x, centroids_of(x, 3)) * (1 + 1e-9)
    assert spread(x, centroids_of(x, 3)) <= 1.25 * best(x, 3)


def test_ten_times_the_clusters_lose_a_hundredth() -> None:
    """The error of k levels falls with 1 / k^2."""
    x = np.random.default_rng(0).standard_normal(20_000)
    lost = [spread(x, centroids_of(x, k)) / len(x) for k in (4, 16, 64)]
    assert lost[0] == pytest.approx(0.1175, abs=2e-3)  # Lloyd-Max quantiser of a normal variable, 2 bits
    assert lost[1] == pytest.approx(0.009497, abs=5e-4)  # 4 bits
    assert lost[2] < 0.0012
