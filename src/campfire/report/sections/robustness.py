"""What attacks leave of the accuracy: curves over their strength, run beside run, and the paper's."""

from collections.abc import Mapping, Sequence

from campfire.report.drawing.chart import Chart
from campfire.report.formats import NONE, fixed, plain
from campfire.report.records.compare import Report
from campfire.report.records.counted import Attacks, Hit, strength
from campfire.report.records.record import Run
from campfire.report.records.settings import Look
from campfire.report.sections.paper import FGSM
from campfire.report.sections.plots import legend
from campfire.report.sections.section import Figure, Section, Table

Known = Sequence[tuple[Run, Attacks]]
WORDS = (
    "Top-1 in percent of all images, those that are wrong without an attack included, by the attack's strength (eps); each "
    "network is attacked by gradients of its own. Brackets and upright lines hold 95 % intervals (Wilson)."
)
PIXELS = " Strengths in pixel space are of values in [0, 1]."


def robustness(report: Report, looks: Mapping[str, Look], draw: bool) -> Section:
    """Of the runs that have an ``attack.json``; empty where none has."""
    known = [(run, run.attacks) for run in report.runs if run.attacks is not None and run.attacks.results]
    curves = list(dict.fromkeys(name for _, found in known for name in found.curves()))
    figures = tuple(_figure(i, name, known, looks) for i, name in enumerate(curves, 1)) if draw else ()
    against = {row.run: row.against for row in report.rows}
    tables = [_table(name, known, against) for name in curves]
    tables += [_paper()] if any(name.startswith("fgsm") for name in curves) else []
    words = WORDS + PIXELS * any(", pixel" in name for name in curves) + _samples(known)
    return Section("robustness", "Robustness", words if known else "", figures, tuple(tables))


def _samples(known: Known) -> str:
    """Runs that were attacked on other images than the first."""
    first = known[0] if known else None
    others = [run.name for run, found in known if first and found.attacked != first[1].attacked]
    if not others or first is None:
        return ""
    return (
        f" Not the same images as those of {plain(first[0].name)}, so not compared with it: {plain(', '.join(others))}."
    )


def _figure(number: int, curve: str, known: Known, looks: Mapping[str, Look]) -> Figure:
    lines = [(run, found.curves()[curve]) for run, found in known if curve in found.curves()]
    hits = [hit for _, line in lines for hit in line]
    used = [looks[run.name] for run, _ in lines]
    told = "; ".join(f"{plain(run.name)} {_path(line)}" for run, line in lines[:8])
    label = f"Top-1 under {plain(curve)}, by eps: {told}."
    high = max(hit.high for hit in hits)
    chart = Chart(label, (0, max(map(strength, hits)) or 1), (0, high), ("eps", "top-1, %"), legend(used))
    for (run, line), look in zip(lines, used, strict=True):
        _draw(chart, plain(run.name), line, look)
    return Figure(f"attack-{number}", chart.drawing.done(), f"Top-1 under {plain(curve)}")


def _draw(chart: Chart, name: str, line: Sequence[Hit], look: Look) -> None:
    more = {"stroke_dasharray": look.dash} if look.dash else {}
    for hit in line:
        chart.line([(strength(hit), hit.low), (strength(hit), hit.high)], look.ink, 1, opacity=0.5)
    chart.line([(strength(hit), hit.top1) for hit in line], look.ink, 1.8, **more)
    for hit in line:
        chart.dot(strength(hit), hit.top1, look.ink, 3, f"{name}, eps {strength(hit):.4g}: {fixed(hit.top1)}")


def _path(line: Sequence[Hit]) -> str:
    return f"from {fixed(line[0].top1)} to {fixed(line[-1].top1)} at {strength(line[-1]):.4g}"


def _table(curve: str, known: Known, against: Mapping[str, str | None]) -> Table:
    lines = {run.name: (found, found.curves()[curve]) for run, found in known if curve in found.curves()}
    strengths = sorted({strength(hit) for _, line in lines.values() for hit in line})
    rows = []
    for name, (found, line) in lines.items():
        held = lines.get(against[name] or "")
        dense = held[1] if held and held[0].attacked == found.attacked else ()
        rows.append((plain(name), *_cells(line, strengths, dense)))
    gaps = "; behind it points to the dense run" if any(against[name] in lines for name in lines) else ""
    head = ("run", *(_eps(x, levels=", linf, pixel" in curve) for x in strengths))
    return Table(f"{plain(curve)}: top-1, % [95 %]{gaps}", head, rows)


def _cells(line: Sequence[Hit], strengths: Sequence[float], dense: Sequence[Hit]) -> list[str]:
    """Accuracy and interval at each strength, and the difference to dense."""
    own, held = {strength(hit): hit for hit in line}, {strength(hit): hit for hit in dense}
    return [_cell(own.get(eps), held.get(eps)) for eps in strengths]


def _cell(hit: Hit | None, dense: Hit | None) -> str:
    if hit is None:
        return NONE
    gap = "" if dense is None else f"; {fixed(hit.top1 - dense.top1, 2, '+')}"
    return f"{fixed(hit.top1)} [{fixed(hit.low, 1)}, {fixed(hit.high, 1)}]{gap}"


def _eps(value: float, levels: bool) -> str:
    """A strength, as a part of 255 where it is one of pixels' ``levels``.

    >>> _eps(8 / 255, True), _eps(0.05, True), _eps(0.2, False), _eps(0.0, True)
    ('8/255', '0.05', '0.2', 'no attack')
    """
    if value == 0:
        return "no attack"
    steps = round(255 * value)
    return f"{steps}/255" if levels and steps and abs(value - steps / 255) < 1e-6 else f"{value:.4g}"


def _paper() -> Table:
    """Gaps of the paper's table; which strengths they are of is lost."""
    dense = next(iter(FGSM.values()))
    rows = [("paper: dense, top-1 %", *map(fixed, dense))]
    for (name, start, sparsity), values in list(FGSM.items())[1:]:
        gaps = (fixed(value - held, 2, "+") for value, held in zip(values, dense, strict=True))
        rows.append((f"paper: {name}, {start}, {sparsity} %", *gaps))
    head = ("network", *(f"strength {i}" for i in range(1, 7)))
    caption = "The paper's Table 6, ResNet-50 on ImageNet: points of top-1 to dense under FGSM at six rising strengths, whose eps we do not know"
    return Table(caption, head, rows, frozenset(range(len(rows))))
