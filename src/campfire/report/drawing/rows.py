"""Points by row: a name on the left, a value axis to the right, and a point in the row for each series."""

from collections.abc import Mapping, Sequence

from campfire.report.drawing.chart import WIDTH, Item, Scale
from campfire.report.drawing.svg import Drawing, short, width_of
from campfire.report.formats import fixed

NAMED, LETTERS = 80, 22  # rows that all have their names; letters of a name


class Rows:
    """A drawing with one row a name; ``items`` are the legend, ``axis`` says what the values are."""

    def __init__(self, label: str, names: Sequence[str], items: Sequence[Item], values: tuple[float, float], axis: str):
        items = [(short(text, 34), ink, dash) for text, ink, dash in items]
        top = Drawing(WIDTH, 0, "").legend(items, 12) + 32
        self.names, self.top = list(names), top
        self.high = 18.0 if len(names) <= 40 else 14.0
        self.drawing = Drawing(WIDTH, top + len(names) * self.high + 6, label)
        self.drawing.legend(items, 12)
        left = 10 + max(width_of(short(name, LETTERS), 11) for name in names)
        self.scale = Scale(*values, start=left, end=WIDTH - 14)
        self._grid(axis)

    def points(self, name: str, found: Sequence[tuple[Item, float]], unit: str, of: int) -> None:
        """The points of one row, each a little below the one before, so that equal ones are seen; a ring where none is."""
        y = self._y(name)
        if not found:
            self.drawing.dot((self.scale.start, y), "muted", 3, f"{name}: dense", ring=True)
        step = min(4.0, (self.high - 7) / max(of - 1, 1))
        for i, ((label, ink, dash), value) in enumerate(found):
            at = self.scale.at(value), y + (i - (len(found) - 1) / 2) * step
            self.drawing.dot(at, ink, 3.2, f"{name}, {label}: {fixed(value)}{unit}", ring=bool(dash))

    def name(self, name: str, ink: str) -> None:
        """The name beside its row, where there is room for all of them or it is of an even row."""
        if len(self.names) <= NAMED or self.names.index(name) % 2 == 0:
            self.drawing.text((self.scale.start - 10, self._y(name) + 4), short(name, LETTERS), ink, "end", 11)

    def upright(self, value: float, ink: str = "line", width: float = 1) -> None:
        """A line through all rows."""
        x = self.scale.at(value)
        self.drawing.line([(x, self.top), (x, self.top + len(self.names) * self.high)], ink, width)

    def _y(self, name: str) -> float:
        return self.top + (self.names.index(name) + 0.5) * self.high

    def _grid(self, axis: str) -> None:
        self.drawing.text((WIDTH - 4, self.top - 21), axis, anchor="end")
        for tick in self.scale.ticks:
            self.upright(tick)
            self.drawing.text((self.scale.at(tick), self.top - 5), f"{tick:g}", anchor="middle")


def dots(
    label: str,
    names: Sequence[str],
    values: Mapping[Item, Mapping[str, float]],
    between: tuple[float, float],
    axis: str,
    unit: str = "",
    mark: float | None = None,
) -> str:
    """A whole such drawing; ``mark`` is a value with a line of its own."""
    drawn = Rows(label, names, list(values), between, axis)
    if mark is not None:
        drawn.upright(mark, "muted", 1.5)
    for name in names:
        found = [(item, known[name]) for item, known in values.items() if name in known]
        drawn.name(name, "ink" if found else "muted")
        drawn.points(name, found, unit, len(values))
    return drawn.drawing.done()
