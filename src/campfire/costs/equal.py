"""Structures side by side at equal accuracy: what each costs where its accuracy curve crosses a level."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from campfire.errors import UsageError


@dataclass(frozen=True)
class Point:
    """One trained network: accuracy in percent, the share of its weights that live, and costs by name."""

    accuracy: float
    density: float
    costs: Mapping[str, float]


@dataclass(frozen=True)
class Crossing:
    """Where a structure reaches a level of accuracy with the fewest weights.

    ``exact`` is False where its sparsest network is still that accurate: then it can do with less than this.
    """

    density: float
    costs: dict[str, float]
    exact: bool


def common_level(curves: Mapping[str, Sequence[Point]]) -> float:
    """The highest accuracy that every structure reaches.

    Raises:
        UsageError: there is nothing to compare.
    """
    if not curves or not all(curves.values()):
        raise UsageError("to compare at equal accuracy there must be a trained network of every structure")
    return min(max(point.accuracy for point in points) for points in curves.values())


def crossing(points: Sequence[Point], level: float) -> Crossing | None:
    """The first point from the sparse end at which a curve is at ``level`` or above, between two networks on a straight
    line; None where it never is.

    >>> curve = [Point(90, 0.2, {"bytes": 20}), Point(94, 0.6, {"bytes": 60})]
    >>> crossing(curve, 92)
    Crossing(density=0.4, costs={'bytes': 40.0}, exact=True)
    """
    ordered = sorted(points, key=lambda point: point.density)
    index = next((i for i, point in enumerate(ordered) if point.accuracy >= level), None)
    if index is None:
        return None
    upper = ordered[index]
    if index == 0:
        return Crossing(upper.density, dict(upper.costs), exact=upper.accuracy == level)
    lower = ordered[index - 1]
    share = (level - lower.accuracy) / (upper.accuracy - lower.accuracy)

    def between(low: float, high: float) -> float:
        return low + share * (high - low)

    costs = {name: between(lower.costs[name], upper.costs[name]) for name in upper.costs}
    return Crossing(between(lower.density, upper.density), costs, exact=True)
