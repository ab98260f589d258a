"""Costs at equal accuracy."""

import pytest

from campfire.costs.equal import Point, common_level, crossing
from campfire.errors import UsageError


def curve(*pairs: tuple[float, float]) -> list[Point]:
    return [Point(accuracy, density, {"storage": 1.5 * density}) for accuracy, density in pairs]


def test_between_two_networks() -> None:
    found = crossing(curve((80, 0.1), (90, 0.3), (91, 1.0)), 85)
    assert found is not None
    assert (found.density, found.costs["storage"], found.exact) == (pytest.approx(0.2), pytest.approx(0.3), True)


def test_the_sparsest_crossing_counts_on_a_curve_that_is_not_monotonic() -> None:
    found = crossing(curve((70, 0.1), (90, 0.2), (88, 0.4), (92, 1.0)), 89)
    assert found is not None
    assert found.density == pytest.approx(0.195)


def test_beyond_the_ends() -> None:
    assert crossing(curve((80, 0.1), (90, 0.3)), 90.1) is None
    sparsest = crossing(curve((80, 0.1), (90, 0.3)), 75)
    assert sparsest is not None
    assert (sparsest.density, sparsest.exact) == (0.1, False)


def test_mao_at_equal_accuracy() -> None:
    """VGG-16 in table T-M2: 1-D stores least at a top-5 of 90.6 %."""
    per_weight = {"fine": 1.5, "vector": 7 / 6, "kernel": 19 / 18}
    density = {"fine": 0.270, "vector": 0.307, "kernel": 0.444}
    found = {}
    for grain, d in density.items():
        ends = [
            Point(90.6 + slope, d + slope / 10, {"storage": (d + slope / 10) * per_weight[grain]}) for slope in (-1, 1)
        ]
        at = crossing(ends, 90.6)
        assert at is not None
        found[grain] = at.costs["storage"]
    assert {grain: round(100 * x, 1) for grain, x in found.items()} == {"fine": 40.5, "vector": 35.8, "kernel": 46.9}
    assert min(found, key=found.__getitem__) == "vector"


def test_the_level_that_all_reach() -> None:
    assert common_level({"a": curve((80, 0.1), (93, 1)), "b": curve((91, 0.5), (85, 0.2))}) == 91
    for nothing in ({}, {"a": []}):
        with pytest.raises(UsageError, match="a trained network of every structure"):
            common_level(nothing)
