"""What changed over the epochs, one line a run: sparsity, accuracy and loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from campfire.report.drawing.chart import Chart, Item
from campfire.report.formats import fixed, thin
from campfire.report.records.record import Run
from campfire.report.records.settings import Look

POINTS = 400  # a curve's most; more cannot be seen
LABELLED = 12  # lines that a legend tells apart; beyond that the table's colours must do


@dataclass(frozen=True)
class Curve:
    """A value an epoch, drawn strong, and thin beneath it the one it is read against."""

    title: str
    label: str
    strong: str  # fields of Epoch
    thin: str
    thin_label: str
    factor: float = 1.0


CURVES = {
    "accuracy": Curve("Accuracy", "top-1, %", "eval_top1", "train_top1", "training images"),
    "sparsity": Curve("Sparsity", "zeros in pruned layers, %", "sparsity_true", "sparsity_requested", "requested", 100),
    "loss": Curve("Loss", "loss", "eval_loss", "train_loss", "training images"),
}


@dataclass(frozen=True)
class Line:
    """One run in one plot; what was not measured, or not finite, is a gap."""

    name: str
    look: Look
    at: list[float]
    strong: list[float]
    thin: list[float]

    @property
    def last(self) -> float | None:
        """The last value that is there."""
        return next((value for value in reversed(self.strong) if not math.isnan(value)), None)


def curves(runs: Sequence[Run], looks: Mapping[str, Look]) -> dict[str, str]:
    """Name -> SVG of what changed over the epochs; a plot that no run has numbers for is left out."""
    plots = {name: (curve, lines_of(runs, curve, looks)) for name, curve in CURVES.items()}
    return {name: _draw(name, *plot) for name, plot in plots.items() if plot[1]}


def legend(lines: Sequence[Look]) -> list[Item]:
    """Each look once, unless they are too many to be told apart."""
    items = list(dict.fromkeys((look.label, look.ink, look.dash) for look in lines))
    return items if len(items) <= LABELLED else []


def lines_of(runs: Sequence[Run], curve: Curve, looks: Mapping[str, Look]) -> list[Line]:
    """The lines of one plot; a run without any of its numbers has none."""
    lines = []
    for run in runs:
        epochs = thin(run.epochs, POINTS)
        strong, weak = ([_scaled(getattr(e, f), curve.factor) for e in epochs] for f in (curve.strong, curve.thin))
        if not all(map(math.isnan, strong + weak)):
            lines.append(Line(run.name, looks[run.name], [e.epoch + 1 for e in epochs], strong, weak))
    return lines


def _scaled(value: float | None, factor: float) -> float:
    return math.nan if value is None else factor * value


def _draw(name: str, curve: Curve, lines: Sequence[Line]) -> str:
    ends = "; ".join(f"{line.name} ends at {fixed(line.last)}" for line in lines[:LABELLED])
    label = f"{curve.title} over the epochs, {curve.label}: {ends}{'; …' if len(lines) > LABELLED else ''}."
    looks = [*legend([line.look for line in lines]), (curve.thin_label, "muted", "")]
    low, high, log = _range(name, lines)
    chart = Chart(label, _epochs(lines), (low, high), ("epoch", curve.label), looks, log)
    for line in lines:
        chart.line(_inside(line.at, line.thin, low), line.look.ink, 1, opacity=0.45)
    for line in lines:
        more = {"stroke_dasharray": line.look.dash} if line.look.dash else {}
        chart.line(_inside(line.at, line.strong, low), line.look.ink, 2, **more)
        if line.last is not None and line.last >= low:
            chart.dot(line.at[-1], line.last, line.look.ink, 3.2, f"{line.name}: {fixed(line.last)}")
    return chart.drawing.done()


def _epochs(lines: Sequence[Line]) -> tuple[float, float]:
    """From 0, where nothing has been learned, to the last epoch."""
    return 0, max(max(line.at) for line in lines)


def _inside(at: Sequence[float], values: Sequence[float], low: float) -> list[tuple[float, float]]:
    """What lies below the axis is a gap."""
    return [(x, y if y >= low else math.nan) for x, y in zip(at, values, strict=True)]


def _range(name: str, lines: Sequence[Line]) -> tuple[float, float, bool]:
    """Lowest and highest value shown, and whether ratios are: zeros from 0 to 100, losses perhaps, accuracy near its end."""
    seen = [y for line in lines for y in line.strong + line.thin if not math.isnan(y)]
    if name == "sparsity":
        return 0, 100, False
    if name == "loss":
        return (min(seen), max(seen), True) if 0 < 20 * min(seen) < max(seen) else (0, max(seen), False)
    late = [y for line in lines for y in line.strong[len(line.strong) // 5 :] if not math.isnan(y)] or seen
    return max(0.0, min(late) - 0.1 * (max(late) - min(late)) - 0.5), max(seen) + 0.5, False
