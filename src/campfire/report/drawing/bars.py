"""Bars in groups: what is left of a dense network, setting beside setting."""

from collections.abc import Mapping, Sequence

from campfire.report.drawing.chart import WIDTH, Item
from campfire.report.drawing.svg import SIZE, Drawing, short
from campfire.report.formats import fixed

BAR, GAP = 15.0, 30.0  # pixels: of one bar, and from group to group
FULL = WIDTH - 56  # of 100 %, with room for the number


def bars(label: str, groups: Mapping[str, Sequence[tuple[Item, float]]]) -> str:
    """SVG of percentages, at most 100 wide; a group has a heading and a bar for each item of the legend."""
    items = list(dict.fromkeys(item for found in groups.values() for item, _ in found))
    items = [(short(text, 34), ink, dash) for text, ink, dash in items]
    y = Drawing(WIDTH, 0, "").legend(items, 12)
    high = y + sum(GAP + BAR * len(found) for found in groups.values())
    told = [f"{name}: {', '.join(f'{item[0]} {fixed(x, 1)}' for item, x in found)}" for name, found in groups.items()]
    drawing = Drawing(WIDTH, high + 4, f"{label}: {'; '.join(told)}.")
    drawing.legend(items, 12)
    for name, found in groups.items():
        drawing.text((0, y + 20), name, "ink")
        y += GAP - 2
        for item, value in found:
            _bar(drawing, y, item, value, f"{name}, {item[0]}: {fixed(value)} %")
            y += BAR
        y += 2
    return drawing.done()


def _bar(drawing: Drawing, y: float, item: Item, value: float, tip: str) -> None:
    wide = FULL * min(value, 100) / 100
    drawing.rectangle((0, y, FULL, BAR - 3), "line", rx=2, opacity=0.5)
    drawing.rectangle((0, y, max(wide, 1), BAR - 3), item[1], tip, rx=2, opacity=0.6 if item[2] else 1)
    drawing.text((WIDTH - 2, y + BAR - 5), f"{fixed(value, 1)} %", "ink", "end", SIZE - 1)
