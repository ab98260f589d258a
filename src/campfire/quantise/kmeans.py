"""k-means on a line, exactly and without a random choice.

On a line a cluster is an interval. So on sorted values with running sums a round of Lloyd's algorithm is k binary
searches: a layer of millions of weights takes as long as its sorting, where a library for points in space compares every
value with every centre.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ROUNDS = 200


def centroids_of(values: Floats, clusters: int) -> Floats:
    """At most ``clusters`` ascending centres [m] of finite values [n]; the distinct values where there are no more of them.

    Of two starts, evenly spaced (better for the few large weights, Han et al. 2016) and evenly filled, the one that ends
    with the smaller sum of squares is taken.

    >>> centroids_of(np.array([0.0, 0.2, 1.0, 1.2]), 2).round(3).tolist()
    [0.1, 1.1]
    """
    distinct, times = np.unique(values, return_counts=True)
    if len(distinct) <= clusters:
        return distinct
    line = Line.of(distinct, times)
    even = np.linspace(distinct[0], distinct[-1], clusters)
    filled = np.quantile(values, (np.arange(clusters) + 0.5) / clusters)
    return min((line.settle(start) for start in (even, filled)), key=line.spread)


def nearest(values: Floats, centroids: Floats) -> NDArray[np.int64]:
    """The number of each value's nearest centroid (ascending); in the middle between two, the upper one."""
    return np.searchsorted(_middles(centroids), values, side="right")


def _middles(centroids: Floats) -> Floats:
    return (centroids[1:] + centroids[:-1]) / 2


@dataclass(frozen=True)
class Line:
    """Ascending distinct values, and running sums of how often they occur, of them, and of their squares."""

    values: Floats
    counts: Floats
    sums: Floats
    squares: Floats

    @classmethod
    def of(cls, values: Floats, times: NDArray[np.int64]) -> "Line":
        running = [np.concatenate([[0.0], np.cumsum(x * times)]) for x in (np.ones_like(values), values, values**2)]
        return cls(values, *running)

    def settle(self, centroids: Floats) -> Floats:
        """Lloyd's rounds until nothing moves; empty clusters are dropped."""
        for _ in range(ROUNDS):
            count, total = self._inside(self.counts, centroids), self._inside(self.sums, centroids)
            moved = total[count > 0] / count[count > 0]
            if len(moved) == len(centroids) and np.array_equal(moved, centroids):
                break
            centroids = moved
        return centroids

    def spread(self, centroids: Floats) -> float:
        """The sum of squared distances to the nearest centroid."""
        count, total, squares = (self._inside(x, centroids) for x in (self.counts, self.sums, self.squares))
        return float((squares - 2 * centroids * total + centroids**2 * count).sum())

    def _inside(self, running: Floats, centroids: Floats) -> Floats:
        cuts = np.searchsorted(self.values, _middles(centroids), side="left")
        return np.diff(running[np.concatenate([[0], cuts, [len(self.values)]])])
