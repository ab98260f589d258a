"""The report as Markdown: tables that read well unrendered too, and the plots as links where there are any."""

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from campfire.report.formats import plain, thin
from campfire.report.records.columns import (
    EPOCH_HEAD,
    IDENTITY,
    LAYER_HEAD,
    RESULTS,
    Column,
    config_rows,
    environment_rows,
    epoch_cells,
    layer_cells,
)
from campfire.report.records.compare import Report, Row
from campfire.report.records.record import Run
from campfire.report.sections import patterns
from campfire.report.sections.section import Section

EPOCH_ROWS = 25  # the rest is in metrics.jsonl
NOTHING: Mapping[str, str] = MappingProxyType({})
NUMERIC = tuple("0123456789+\N{MINUS SIGN}\N{EN DASH}")
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")


def render(report: Report, sections: Sequence[Section] = (), figures: Mapping[str, str] = NOTHING) -> str:
    """The whole report with these sections; ``figures`` maps a figure's name to the path of its file."""
    parts = ["# campfire report", *_comparison(report)]
    if report.left_out:
        told = (f"- {escape(one.name)}: {escape(one.reason)}" for one in report.left_out)
        parts += ["## Not shown", "\n".join(told)]
    if notes := [*report.warnings, *report.notes]:
        parts += ["## Notes", "\n".join(f"- {escape(note)}" for note in notes)]
    for section in sections:
        parts += _section(section, figures)
    for run in report.runs:
        parts += _run(run)
    if config := config_rows(report.runs):
        parts += ["## Where the runs differ", _side_by_side(report.runs, config)]
    if environment := environment_rows(report.runs):
        parts += ["## Environment", _side_by_side(report.runs, environment)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(section: Section, figures: Mapping[str, str]) -> Iterable[str]:
    linked = [figure for figure in section.figures if figure.name in figures]
    if not linked and not section.tables:
        return
    yield f"## {escape(section.title)}"
    yield escape(section.lede) if section.lede else ""
    for figure in linked:
        yield f"![{escape(figure.caption)}]({figures[figure.name]})"
    for table in section.tables:
        yield f"{escape(table.caption)}:"
        yield _table(table.head, table.rows)


def escape(text: object) -> str:
    r"""``text`` as Markdown that shows exactly that, in a table cell too.

    >>> print(escape("a|b <script> conv_1"))
    a\|b \<script\> conv\_1
    """
    return SPECIAL.sub(r"\\\1", plain(text))


def _comparison(report: Report) -> Iterable[str]:
    run, *identity = IDENTITY
    training = [column for column in RESULTS if column.group == "Training"]
    results = [column for column in RESULTS if column.group != "Training"]
    for columns in ([run, *results], [run, *identity, *training]):
        yield _table([c.full for c in columns], [[_cell(c, row) for c in columns] for row in report.rows])


def _cell(column: Column, row: Row) -> str:
    detail = column.detail(row)
    return column.text(row) + (f" ({detail})" if detail else "")


def _run(run: Run) -> Iterable[str]:
    yield f"## {escape(run.name)}"
    if run.layers:
        pruned = sum(layer.pruned for layer in run.layers)
        yield f"{pruned} of {len(run.layers)} layers pruned."
        yield _table(LAYER_HEAD, [layer_cells(layer) for layer in run.layers])
    if rows := patterns.table(run):
        yield escape(patterns.lede(run))
        yield f"```\n{patterns.drawing(run)}\n```"
        yield _table(patterns.HEAD, rows)
    if run.epochs:
        rows = thin(run.epochs, EPOCH_ROWS)
        more = "" if len(rows) == len(run.epochs) else f" ({len(rows)} of {len(run.epochs)}; all are in metrics.jsonl)"
        yield f"Epochs{more}:"
        yield _table(EPOCH_HEAD, [epoch_cells(epoch) for epoch in rows])


def _side_by_side(runs: Sequence[Run], rows: Sequence[tuple[str, list[str]]]) -> str:
    if all(len(values) == 1 for _, values in rows):
        return _table(["", "every run" if len(runs) > 1 else "value"], [[key, *values] for key, values in rows])
    return _table(
        ["", *(run.name for run in runs)], [[key, *(values * len(runs))[: len(runs)]] for key, values in rows]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to one width; those that hold only numbers are flushed right."""
    rows = [[escape(cell) if cell else "" for cell in row] for row in rows]
    columns = list(zip(*rows, strict=True))
    right = [i > 0 and all(cell.startswith(NUMERIC) for cell in column if cell) for i, column in enumerate(columns)]
    lines = [[escape(cell) if cell else "" for cell in head], *rows]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * (width - 1) + (":" if flush else "-") for width, flush in zip(widths, right, strict=True)]
    return "\n".join(_line(line, widths, right) for line in [lines[0], rule, *lines[1:]])


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    aligned = zip(cells, widths, right, strict=True)
    return f"| {' | '.join(cell.rjust(width) if flush else cell.ljust(width) for cell, width, flush in aligned)} |"
