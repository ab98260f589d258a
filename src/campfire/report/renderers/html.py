"""The report as one HTML file: no script, nothing fetched, every text escaped; it opens from ``file://``."""

from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any

from campfire.extras import need
from campfire.report.drawing import svg
from campfire.report.formats import NONE, plain, thin
from campfire.report.records.columns import (
    EPOCH_HEAD,
    LAYER_HEAD,
    RESULTS,
    config_rows,
    environment_rows,
    epoch_cells,
    how,
    layer_cells,
    lede,
    what,
)
from campfire.report.records.compare import Report
from campfire.report.records.record import Run
from campfire.report.records.settings import looks
from campfire.report.sections import patterns
from campfire.report.sections.effort import LAYER_COSTS, layer_costs
from campfire.report.sections.section import Section, Table

INSTEAD = ", or leave it at Markdown with --no-html"
EPOCH_ROWS = 200  # the rest is in metrics.jsonl


def render(report: Report, sections: Sequence[Section]) -> str:
    """The page; ``sections`` are those of `campfire.report.contents`.

    Raises:
        CampfireError: jinja2 is missing.
    """
    jinja2, markupsafe = need("the HTML report", "report", "jinja2", "markupsafe", instead=INSTEAD)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    look = looks(report.runs, report.rows)
    machine = [row for row in environment_rows(report.runs) if row[0] != "argv"]  # stands with each run
    about = how if len({(row.model, row.data) for row in report.rows}) == 1 else what
    page = environment.from_string(_text("page.html.j2"))
    text = page.render(
        safe=markupsafe.Markup,  # only for the style sheet, and for what svg.py made, which escapes its texts itself
        css=_text("page.css"),
        colours={"light": svg.LIGHT, "dark": svg.DARK},
        lede=lede(report.rows),
        title=", ".join(plain(run.name) for run in report.runs[:3]) + (" …" if len(report.runs) > 3 else ""),
        groups=[(name, len(list(group))) for name, group in groupby(RESULTS, key=lambda column: column.group)],
        columns=RESULTS,
        rows=[(row, look[row.run], about(row)) for row in report.rows],
        left_out=[(plain(one.name), plain(one.reason)) for one in report.left_out],
        notes=[*report.warnings, *report.notes],
        sections=sections,
        runs=[_run(run, look[run.name].ink) for run in report.runs],
        tables=[("differences", "Where the runs differ", config_rows(report.runs)),
                ("environment", "Environment", machine)],
        nothing=NONE,
    )  # fmt: skip
    return text + "\n"


def _text(name: str) -> str:
    return files("campfire.report.renderers").joinpath(name).read_text(encoding="utf-8")


def _run(run: Run, ink: str) -> dict[str, Any]:
    epochs = [epoch_cells(epoch) for epoch in thin(run.epochs, EPOCH_ROWS)]
    few = "" if len(epochs) == len(run.epochs) else f" ({len(epochs)} of {len(run.epochs)})"
    tables = [
        Table("Layers", LAYER_HEAD, [layer_cells(layer) for layer in run.layers]),
        Table("Costs of the layers", LAYER_COSTS, layer_costs(run)),
        Table(f"Epochs{few}", EPOCH_HEAD, epochs),
        Table("Recipe", ("option", "value"), [(plain(key), plain(value)) for key, value in run.config.items()]),
    ]
    return {
        "name": plain(run.name),
        "ink": ink,
        "pruned": sum(layer.pruned for layer in run.layers),
        "layers": len(run.layers),
        "dense": frozenset(i for i, layer in enumerate(run.layers) if not layer.pruned),
        "command": plain(run.environment.get("argv")),
        "tables": [table for table in tables if table.rows],
        "patterns": Table("", patterns.HEAD, patterns.table(run)),
        "pattern_lede": patterns.lede(run),
        "drawing": patterns.drawing(run),
    }
