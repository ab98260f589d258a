"""All sections of a report in their order: what formats show beside the comparison itself."""

from collections.abc import Mapping

from campfire.report.records.compare import Report
from campfire.report.records.settings import Look, looks
from campfire.report.sections.depth import HEAD, by_depth, extremes, shown
from campfire.report.sections.effort import costs, speed
from campfire.report.sections.filters import filters
from campfire.report.sections.outcomes import outcomes
from campfire.report.sections.plots import curves
from campfire.report.sections.robustness import robustness
from campfire.report.sections.section import Figure, Section, Table, figure

CAPTIONS = {
    "accuracy": "Top-1 on the test images (strong) and on the training images as they passed (thin)",
    "sparsity": "Zeros over the pruned layers, true (strong) and requested (thin)",
    "loss": "Loss on the test images (strong) and on the training images as they passed (thin)",
}


def sections(report: Report, draw: bool = True) -> list[Section]:
    """What there is to show of these runs; without ``draw``, only words and tables."""
    look = looks(report.runs, report.rows)
    found = [
        *outcomes(report, draw),
        *([_epochs(report, look), _depth(report, look)] if draw else []),
        costs(report, look, draw),
        speed(report, look, draw),
        robustness(report, look, draw),
        *([filters(report.runs, look)] if draw else []),
    ]
    return [section for section in found if not section.empty]


def _epochs(report: Report, look: Mapping[str, Look]) -> Section:
    drawn = curves(report.runs, look)
    return Section("epochs", "Over the epochs", "", tuple(Figure(n, svg, CAPTIONS[n]) for n, svg in drawn.items()))


def _depth(report: Report, look: Mapping[str, Look]) -> Section:
    caption = f"True sparsity of each layer, from the input down; a ring is a dense layer.{shown(report.runs, look)}"
    drawn = figure("layers", by_depth(report.runs, look), caption)
    rows = extremes(report.runs, look)
    tables = (Table("The layers with the fewest and with the most zeros, of those that are pruned", HEAD, rows),)
    return Section("layers", "Sparsity of each layer", "", drawn, tables * bool(rows))
