"""A chart: two axes with round ticks, a grid, a legend above, and values turned into pixels."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from campfire.report.drawing.svg import SIZE, Drawing, short, width_of

WIDTH, HEIGHT = 400.0, 250.0  # of a figure without its legend; a phone is about as wide
Item = tuple[str, str, str]  # label, colour, dash


@dataclass(frozen=True)
class Scale:
    """From values to pixels; ``log`` where equal steps are equal ratios."""

    low: float
    high: float
    start: float = 0.0
    end: float = 1.0
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; beyond the ends it stays at the end."""
        low, high, value = map(self._turn, (self.low, self.high, max(value, self.low)))
        return self.start + (self.end - self.start) * min((value - low) / ((high - low) or 1.0), 1.0)

    @property
    def ticks(self) -> list[float]:
        """Round values between the ends."""
        return log_ticks(self.low, self.high) if self.log else round_ticks(self.low, self.high)

    def _turn(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.log else value


def round_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most so many multiples of 1, 2 or 5 times a power of ten.

    >>> round_ticks(61, 93), round_ticks(0, 0.31)
    ([65.0, 70.0, 75.0, 80.0, 85.0, 90.0], [0.0, 0.1, 0.2, 0.3])
    """
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = (power * factor for factor in (1, 2, 5, 10, 20))
    step = next(s for s in steps if math.floor(high / s + 1e-9) - math.ceil(low / s - 1e-9) < most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between the ends, thinned to a handful.

    >>> log_ticks(0.04, 3)
    [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [float(f"{f * 10.0**p:.12g}") for p in powers for f in factors]
        if len(inside := [x for x in found if low <= x <= high]) <= 7:
            return inside
    return inside


class Chart:
    """Axes on a drawing, ready for what is shown; ``items`` are the lines of the legend."""

    def __init__(
        self,
        label: str,
        x: tuple[float, float],
        y: tuple[float, float],
        names: tuple[str, str],
        items: Sequence[Item] = (),
        log: bool = False,
        height: float = HEIGHT,
    ):
        items = [(short(text, 34), ink, dash) for text, ink, dash in items]
        top = Drawing(WIDTH, 0, "").legend(items, 12) if items else 0
        self.drawing = Drawing(WIDTH, top + height, label)
        self.drawing.legend(items, 12)
        bottom = top + height - 38
        self.y = Scale(*y, start=bottom, end=top + 24, log=log)
        left = 8 + max(width_of(f"{tick:g}") for tick in self.y.ticks or [0])
        self.x = Scale(*x, start=left, end=WIDTH - 14)
        self._frame(names, bottom, top)

    def _frame(self, names: tuple[str, str], bottom: float, top: float) -> None:
        self.drawing.text((0, top + 10), names[1]).text((WIDTH - 4, bottom + 34), names[0], anchor="end")
        for tick in self.y.ticks:
            y = self.y.at(tick)
            self.drawing.line([(self.x.start, y), (WIDTH - 4, y)], "line", 1)
            self.drawing.text((self.x.start - 6, y + 0.35 * SIZE), f"{tick:g}", anchor="end")
        for tick in self.x.ticks:
            self.drawing.text((self.x.at(tick), bottom + 18), f"{tick:g}", anchor="middle")

    def line(self, points: Iterable[tuple[float, float]], ink: str, width: float = 1.8, **more: object) -> None:
        """A line through values, interrupted where one is missing (NaN)."""
        for stretch in stretches(points):
            self.drawing.line([self.at(*point) for point in stretch], ink, width, **more)

    def dot(self, x: float, y: float, ink: str, radius: float = 3, tip: str = "", ring: bool = False) -> None:
        """A point at two values."""
        self.drawing.dot(self.at(x, y), ink, radius, tip, ring)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """The pixels of two values."""
        return self.x.at(x), self.y.at(y)


def stretches(points: Iterable[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """What can be drawn in one go: the points between those that are missing.

    >>> stretches([(0, 1.0), (1, float("nan")), (2, 3.0), (3, 4.0)])
    [[(0, 1.0)], [(2, 3.0), (3, 4.0)]]
    """
    found: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isnan(y):
            found.append([])
        else:
            found[-1].append((x, y))
    return [stretch for stretch in found if stretch]
