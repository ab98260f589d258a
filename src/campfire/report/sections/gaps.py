"""Gaps to dense against the sparsity asked for, one's own and the paper's of the same structures."""

from collections.abc import Mapping, Sequence

from campfire.report.drawing.chart import Chart, Item
from campfire.report.drawing.svg import SERIES as COLOURS
from campfire.report.formats import fixed
from campfire.report.records.settings import DASHES, Spread
from campfire.report.sections.paper import Quoted

Gaps = Mapping[float, Spread]
MARGIN = 4  # points of sparsity at either side


def gaps(own: Sequence[tuple[str, str, Gaps]], quoted: Sequence[Quoted]) -> str:
    """SVG of points of top-1 to dense; ``own`` are name, structure and gaps by sparsity in percent."""
    inks = {structure: f"series-{i % len(COLOURS)}" for i, structure in reversed(list(enumerate(s for _, s, _ in own)))}
    items = [(name, f"series-{i % len(COLOURS)}", DASHES[i // len(COLOURS) % 4]) for i, (name, _, _) in enumerate(own)]
    lines = [(row, _path(row)) for row in quoted if len(row.dense) > 1]  # the others are of other networks or batches
    levels = [x for _, _, found in own for x in found] + [x for _, path in lines for x, _ in path]
    values = [value for _, _, found in own for spread in found.values() for value in spread.values]
    values += [y for _, path in lines for _, y in path]
    low, high = min([*values, 0]), max([*values, 0])
    between = (
        (min(levels) - MARGIN, max(levels) + MARGIN),
        (low - 0.08 * (high - low or 1), high + 0.08 * (high - low or 1)),
    )
    paper: list[Item] = [("the paper's", "muted", DASHES[2])] if lines else []
    chart = Chart(_label(items, own), *between, ("zeros asked for, %", "points of top-1 to dense"), [*items, *paper])
    chart.line([(between[0][0], 0), (between[0][1], 0)], "muted", 1.2)
    for row, path in lines:
        chart.line(path, inks[row.structure], 1.2, stroke_dasharray=DASHES[2], opacity=0.8)
        for x, y in path:
            chart.dot(
                x, y, inks[row.structure], 2, f"paper, {row.structure}, {row.label}: {fixed(y, 2, '+')} at {x:g} %"
            )
    for item, (_, _, found) in zip(items, own, strict=True):
        _draw(chart, item, found)
    return chart.drawing.done()


def _path(row: Quoted) -> list[tuple[float, float]]:
    """The first number of each entry."""
    first = [(float(level), row.gaps(level)[0]) for level in row.top1]
    return [(level, gap) for level, gap in first if gap is not None]


def _draw(chart: Chart, item: Item, found: Gaps) -> None:
    name, ink, dash = item
    more = {"stroke_dasharray": dash} if dash else {}
    chart.line([(level, spread.mean) for level, spread in found.items()], ink, 2, **more)
    for level, spread in found.items():
        ends = [(level, min(spread.values)), (level, max(spread.values))]
        chart.line(ends, ink, 5, opacity=0.35, stroke_linecap="round")
        chart.dot(level, spread.mean, ink, 4.2, f"{name}: {spread.told(2, '+')} at {level:g} %")


def _label(items: Sequence[Item], own: Sequence[tuple[str, str, Gaps]]) -> str:
    pairs = zip(items, own, strict=True)
    told = [f"{item[0]} {_told(found)}" for item, (_, _, found) in pairs]
    return f"Points of top-1 to dense by sparsity: {'; '.join(told)}."


def _told(found: Gaps) -> str:
    return ", ".join(f"{spread.told(2, '+')} at {level:g} %" for level, spread in found.items())
