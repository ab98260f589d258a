"""Timing that can be believed on a noisy machine: candidates take turns, and ratios are taken round by round."""

import random
import statistics
from collections.abc import Callable, Mapping

from campfire.kernels.clocks import Clock, wall


def interleaved(
    candidates: Mapping[str, Callable[[], object]], rounds: int = 9, clock: Clock = wall
) -> dict[str, list[float]]:
    """Milliseconds of every candidate in every round; each runs once unmeasured first.

    Every round has an order of its own, always the same one: what ran before decides what the caches hold, and is
    not to be the same candidate each time.

    >>> sorted(interleaved({"a": lambda: None, "b": lambda: None}, rounds=3))
    ['a', 'b']
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    orders = random.Random(0)
    for _ in range(rounds):
        for name in orders.sample(list(candidates), len(candidates)):
            times[name].append(clock(candidates[name]))
    return times


def ratio(times: Mapping[str, list[float]], over: str, under: str) -> float:
    """The median over rounds of one candidate's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))
