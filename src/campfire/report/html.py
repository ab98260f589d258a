"""The report as one HTML file: no script, nothing fetched, every text escaped; it opens from ``file://``."""

from collections.abc import Mapping
from importlib.resources import files
from itertools import groupby
from typing import Any

from campfire.report import patterns, plots, svg
from campfire.report.columns import (
    EPOCH_HEAD,
    LAYER_HEAD,
    RESULTS,
    config_rows,
    environment_rows,
    epoch_cells,
    layer_cells,
    lede,
    what,
)
from campfire.report.compare import Report
from campfire.report.extra import need
from campfire.report.formats import plain, thin
from campfire.report.record import Run

EPOCH_ROWS = 200  # the rest is in metrics.jsonl
CAPTIONS = {
    "sparsity": "Sparsity: zeros over the pruned layers, true (strong) and requested (thin)",
    "accuracy": "Accuracy: top-1 on the test images (strong) and on the training images as they passed (thin)",
    "loss": "Loss: on the test images (strong) and on the training images as they passed (thin)",
}


def render(report: Report, curves: Mapping[str, str], layers: Mapping[str, str]) -> str:
    """The page; ``curves`` are the SVGs of `plots.curves`, ``layers`` those of `plots.layers` by the run's name.

    Raises:
        CampfireError: jinja2 or matplotlib is missing.
    """
    jinja2, markupsafe = need("jinja2"), need("markupsafe")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(files("campfire.report").joinpath("page.html.j2").read_text(encoding="utf-8"))
    safe = markupsafe.Markup  # only for what svg.py made, which escapes its texts itself
    text = page.render(
        lede=lede(report.rows),
        title=", ".join(plain(run.name) for run in report.runs[:3]) + (" …" if len(report.runs) > 3 else ""),
        groups=[(name, len(list(group))) for name, group in groupby(RESULTS, key=lambda column: column.group)],
        columns=RESULTS,
        rows=[(row, plots.colour_of(report.runs, i), what(row)) for i, row in enumerate(report.rows)],
        notes=[*report.warnings, *report.notes],
        figures=[(CAPTIONS[name], safe(curve)) for name, curve in curves.items()],
        runs=[
            _run(run, plots.colour_of(report.runs, i), safe(layers.get(run.name, "")))
            for i, run in enumerate(report.runs)
        ],
        config=config_rows(report.runs),
        environment=environment_rows(report.runs),
        layer_head=LAYER_HEAD,
        pattern_head=patterns.HEAD,
        epoch_head=EPOCH_HEAD,
        series=svg.SERIES,
        series_dark=svg.SERIES_DARK,
    )
    return text + "\n"


def _run(run: Run, colour: str, figure: Any) -> dict[str, Any]:
    return {
        "name": plain(run.name),
        "colour": colour,
        "pruned": sum(layer.pruned for layer in run.layers),
        "figure": figure,
        "layers": [(layer_cells(layer), layer.pruned) for layer in run.layers],
        "patterns": patterns.table(run),
        "pattern_lede": patterns.lede(run),
        "drawing": patterns.drawing(run),
        "epochs": [epoch_cells(epoch) for epoch in thin(run.epochs, EPOCH_ROWS)],
        "count": len(run.epochs),
    }
