"""Timing that can be believed on a noisy machine: candidates take turns, and ratios are taken round by round."""

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int = 9) -> dict[str, list[float]]:
    """Milliseconds of every candidate in every round; each runs once unmeasured first.

    >>> sorted(interleaved({"a": lambda: None, "b": lambda: None}, rounds=3))
    ['a', 'b']
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for run in candidates.values():
        run()
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def ratio(times: Mapping[str, list[float]], over: str, under: str) -> float:
    """The median over rounds of one candidate's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))
