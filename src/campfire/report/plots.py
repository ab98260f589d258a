"""The plots: what changed over the epochs, run beside run, and how sparse each layer of a run is."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from campfire.report.formats import plain, thin
from campfire.report.record import Layer, Run
from campfire.report.svg import INK, MUTED, PAPER, SERIES, draw_svg, placeholder

POINTS = 1000  # a curve's most; more cannot be seen
NAMES = 64  # of layers, that fit below the bars
DASHES = ((0, (5, 1.6)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))


@dataclass(frozen=True)
class Curve:
    """A value an epoch, drawn strong, and thin beneath it the one it is read against."""

    label: str
    strong: str  # fields of Epoch
    thin: str
    thin_label: str
    factor: float = 1.0


CURVES = {
    "sparsity": Curve("zeros in pruned layers, %", "sparsity_true", "sparsity_requested", "requested", 100),
    "accuracy": Curve("top-1, %", "eval_top1", "train_top1", "training"),
    "loss": Curve("loss", "eval_loss", "train_loss", "training"),
}


@dataclass(frozen=True)
class Line:
    """One run in one plot; what was not measured, or not finite, is a gap."""

    name: str
    dense: bool
    turn: int  # of the dense runs, or of the others
    at: list[float]
    strong: list[float]
    thin: list[float]

    @property
    def style(self) -> dict[str, Any]:
        """Dense runs are dashed ink; the others take the colours in turn, then again with dashes."""
        again = self.turn if self.dense else self.turn // len(SERIES) - 1
        dash = DASHES[again % len(DASHES)] if again >= 0 else "-"
        return {"color": INK if self.dense else placeholder(self.turn % len(SERIES)), "linestyle": dash}


def turn_of(runs: Sequence[Run], index: int) -> int:
    """How many runs of the same sort, dense or not, come before this one."""
    return sum(run.dense == runs[index].dense for run in runs[:index])


def colour_of(runs: Sequence[Run], index: int) -> str:
    """The CSS variable of a run's colour."""
    return "ink" if runs[index].dense else f"series-{turn_of(runs, index) % len(SERIES)}"


def curves(runs: Sequence[Run]) -> dict[str, str]:
    """Name -> SVG of what changed over the epochs; a plot that no run has numbers for is left out."""
    plots = {name: (curve, _lines(runs, curve)) for name, curve in CURVES.items()}
    return {name: draw_svg(_draw_curve, (4.6, 3.3), name, *plot) for name, plot in plots.items() if plot[1]}


def layers(run: Run, turn: int = 0) -> str | None:
    """SVG of the true sparsity of each layer, ticks at the requested one, rings for dense layers; None if all are dense."""
    shown = [layer for layer in run.layers if layer.true is not None or not layer.pruned]
    if not any(layer.pruned for layer in shown):
        return None
    return draw_svg(_draw_layers, (13, 3.7), shown, placeholder(turn % len(SERIES)))


def _lines(runs: Sequence[Run], curve: Curve) -> list[Line]:
    lines = []
    for index, run in enumerate(runs):
        epochs = thin(run.epochs, POINTS)
        strong, weak = ([_scaled(getattr(e, f), curve.factor) for e in epochs] for f in (curve.strong, curve.thin))
        line = Line(run.name, run.dense, turn_of(runs, index), [e.epoch for e in epochs], strong, weak)
        if not all(map(math.isnan, strong + weak)):
            lines.append(line)
    return lines


def _scaled(value: float | None, factor: float) -> float:
    return math.nan if value is None else factor * value


def _draw_curve(axes: Any, name: str, curve: Curve, lines: Sequence[Line]) -> None:
    handles = []
    for line in lines:
        axes.plot(line.at, line.thin, color=line.style["color"], linewidth=0.9, alpha=0.5)
        marker = {"marker": "o", "markersize": 3.2} if len(line.at) <= 40 else {}
        handles += axes.plot(line.at, line.strong, **line.style, **marker)
    handles += axes.plot([], [], color=MUTED, linewidth=0.9, alpha=0.8)
    axes.set(xlabel="epoch", ylabel=curve.label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    {"sparsity": _from_0_to_100, "accuracy": _near_the_end, "loss": _perhaps_log}[name](axes, lines)
    _legend(axes, handles, [*(_short(line.name, 32) for line in lines), curve.thin_label])


def _from_0_to_100(axes: Any, lines: Sequence[Line]) -> None:
    axes.set_ylim(-2, 102)


def _near_the_end(axes: Any, lines: Sequence[Line]) -> None:
    """The first fifth of the epochs may lie below the axis, so that the rest can be told apart."""
    late = [top1 for line in lines for top1 in line.strong[len(line.strong) // 5 :] if not math.isnan(top1)]
    if late:
        axes.set_ylim(bottom=max(0.0, min(late) - 0.1 * (max(late) - min(late)) - 0.5))


def _perhaps_log(axes: Any, lines: Sequence[Line]) -> None:
    seen = [loss for line in lines for loss in line.strong + line.thin if not math.isnan(loss)]
    if 0 < 20 * min(seen) < max(seen):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _draw_layers(axes: Any, shown: Sequence[Layer], colour: str) -> None:
    pruned = [(i, layer) for i, layer in enumerate(shown) if layer.pruned]
    dense = [i for i, layer in enumerate(shown) if not layer.pruned]
    bars = axes.bar([i for i, _ in pruned], [100 * (r.true or 0) for _, r in pruned], width=0.72, color=colour)
    wanted = [(i, 100 * r.requested) for i, r in pruned if r.requested is not None]
    tick = {"marker": "_", "markersize": min(max(4.0, 520 / len(shown)), 24), "linestyle": "", "color": INK}
    ticks = axes.plot([i for i, _ in wanted], [w for _, w in wanted], **tick)
    ring = {"marker": "o", "markersize": 5, "markerfacecolor": PAPER, "linestyle": "", "color": MUTED}
    rings = axes.plot(dense, [0] * len(dense), clip_on=False, **ring)
    axes.set(ylabel="zeros, %", ylim=(0, 104), xlim=(-0.8, len(shown) - 0.2))
    axes.grid(visible=False, axis="x")
    at = range(len(shown))[:: math.ceil(len(shown) / NAMES)]
    axes.set_xticks(at, [_short(shown[i].name, 28) for i in at], rotation=90, fontsize=8)
    _legend(axes, [bars, *ticks, *rings][: 3 if dense else 2], ["true", "requested", "dense"][: 3 if dense else 2])


def _short(name: str, length: int) -> str:
    name = plain(name)
    name = name if len(name) <= length else f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"
    return f" {name}" if name.startswith("_") else name  # matplotlib hides labels that start with an underscore


def _legend(axes: Any, handles: Iterable[Any], labels: Sequence[str]) -> None:
    figure = axes.figure
    room = int(figure.get_figwidth() * 72 / (5.4 * max(map(len, labels)) + 40))  # points a label takes
    columns = max(1, min(len(labels), room))
    where = {"loc": "outside upper left", "borderaxespad": 0.1}
    figure.legend(handles, labels, ncols=columns, labelcolor=INK, handlelength=1.9, columnspacing=1.4, **where)
