"""The comparison as CSV for programs, and every table as LaTeX for papers."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from campfire.report.formats import plain
from campfire.report.records.columns import RESULTS
from campfire.report.records.compare import Report
from campfire.report.records.settings import best_epoch
from campfire.report.sections.section import Section, Table

COSTS = ("file_bytes", "dense_bytes", "mao_ratio", "references", "dense_references", "moved_bytes")
LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{EN DASH}": "--",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
}
SPECIAL = re.compile("|".join(map(re.escape, LATEX)))


def to_csv(report: Report) -> str:
    """A row a run: accuracies in percent, sparsities as fractions of zeros, costs of the convolutions for one image."""
    rows = [_record(report, i) for i in range(len(report.runs))]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _record(report: Report, index: int) -> dict[str, Any]:
    run, row = report.runs[index], asdict(report.rows[index])
    text = {key: plain(value) if isinstance(value, str) else value for key, value in row.items()}
    found = dict.fromkeys(COSTS)
    if run.costs is not None:
        cost = run.costs.convolutions
        found |= {name: getattr(cost, name) for name in COSTS[:3]}
        found["references"], found["dense_references"] = cost.references or (None, None)
        found["moved_bytes"] = cost.activity.moved_bytes if cost.activity else None
    return {**text, "best_epoch": best_epoch(run), **found, "path": plain(run.path)}


def to_latex(report: Report, sections: Iterable[Section]) -> str:
    """A ``table`` environment for the comparison and for each table of the sections; for ``booktabs``."""
    columns = [column for column in RESULTS if column.group != "Training"]
    rows = [[row.run, *(column.text(row) for column in columns)] for row in report.rows]
    comparison = Table("Comparison of the runs", ["run", *(column.full for column in columns)], rows)
    tables = [comparison, *(table for section in sections for table in section.tables)]
    return "% \\usepackage{booktabs}\n" + "\n".join(map(_latex, tables))


def _latex(table: Table) -> str:
    body = [_row(cells, r"\itshape " if i in table.quoted else "") for i, cells in enumerate(table.rows)]
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(table.caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
        r"    \toprule",
        _row(table.head),
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
        "",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str], before: str = "") -> str:
    """Braces keep a leading bracket from being an argument of the line break before it."""
    return f"    {' & '.join(before + '{' + escape(cell) + '}' for cell in cells)} \\\\"


def escape(text: str) -> str:
    r"""``text`` as LaTeX that prints exactly that.

    >>> print(escape("conv_1 & 50 % ± 0.1"))
    conv\_1 \& 50 \% $\pm$ 0.1
    """
    return SPECIAL.sub(lambda found: LATEX[found[0]], plain(text))
