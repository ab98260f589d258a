"""Accuracy against sparsity: one line a series, a point a setting, its seeds as a bar from the lowest to the highest."""

from collections.abc import Sequence
from itertools import pairwise

from campfire.report.drawing.chart import Chart
from campfire.report.drawing.svg import SERIES as COLOURS
from campfire.report.formats import fixed
from campfire.report.records.settings import DASHES, Series, Setting


def tradeoff(series: Sequence[Series]) -> str | None:
    """SVG of top-1 against true zeros; None where nothing was pruned."""
    pruned = [(one, _shown(one)) for one in series if not one.dense and _shown(one)]
    dense = [setting for one in series if one.dense for setting in _shown(one)]
    if not pruned:
        return None
    looks = [
        (one.name, f"series-{i % len(COLOURS)}", DASHES[i // len(COLOURS) % 4]) for i, (one, _) in enumerate(pruned)
    ]
    items = [*looks, *([("dense", "ink", DASHES[1])] if dense else [])]
    every = [setting for _, settings in pruned for setting in settings]
    label = "Top-1 against sparsity: " + "; ".join(
        _told(setting, one.name) for one, found in pruned for setting in found
    )
    names = "zeros in convolutions, %", "top-1, %"
    chart = Chart(label + _dense_told(dense), _wide(every), _high([*every, *dense]), names, items)
    for setting in dense:
        _dense(chart, setting)
    for (name, ink, dash), (_, settings) in zip(looks, pruned, strict=True):
        _line(chart, settings, name, ink, dash)
    return chart.drawing.done()


def _shown(series: Series) -> list[Setting]:
    return [setting for setting in series.settings if setting.top1 and (setting.zeros or setting.dense)]


def _line(chart: Chart, settings: Sequence[Setting], name: str, ink: str, dash: str) -> None:
    more = {"stroke_dasharray": dash} if dash else {}
    for first, second in pairwise(settings):
        chart.line([_point(first), _point(second)], ink, 1.6, **more)
    for setting in settings:
        x, y = _point(setting)
        assert setting.top1 is not None
        if len(setting.top1.values) > 1:
            low, high = chart.at(x, min(setting.top1.values)), chart.at(x, max(setting.top1.values))
            chart.drawing.line([low, high], ink, 5, opacity=0.35, stroke_linecap="round")
        chart.dot(x, y, ink, 4.2, _told(setting, name))


def _dense(chart: Chart, setting: Setting) -> None:
    """A line across, and a band from the lowest to the highest seed."""
    assert setting.top1 is not None
    left, right = chart.x.low, chart.x.high
    if len(setting.top1.values) > 1:
        (x, top), (end, bottom) = chart.at(left, max(setting.top1.values)), chart.at(right, min(setting.top1.values))
        chart.drawing.rectangle((x, top, end - x, bottom - top), "ink", opacity=0.1)
    chart.line([(left, setting.top1.mean), (right, setting.top1.mean)], "ink", 1.6, stroke_dasharray=DASHES[1])


def _point(setting: Setting) -> tuple[float, float]:
    assert setting.zeros is not None
    assert setting.top1 is not None
    return 100 * setting.zeros.mean, setting.top1.mean


def _told(setting: Setting, name: str) -> str:
    zeros, top1 = _point(setting)
    return f"{name}: {fixed(top1)} at {fixed(zeros, 1)} % zeros"


def _dense_told(dense: Sequence[Setting]) -> str:
    return "".join(f"; dense: {fixed(setting.top1.mean)}" for setting in dense if setting.top1)


def _wide(settings: Sequence[Setting]) -> tuple[float, float]:
    at = [_point(setting)[0] for setting in settings]
    margin = max(0.08 * (max(at) - min(at)), 3)
    return max(min(at) - margin, 0), min(max(at) + margin, 100)


def _high(settings: Sequence[Setting]) -> tuple[float, float]:
    values = [value for setting in settings if setting.top1 for value in setting.top1.values]
    margin = max(0.12 * (max(values) - min(values)), 0.2)
    return max(min(values) - margin, 0), min(max(values) + margin, 100)
