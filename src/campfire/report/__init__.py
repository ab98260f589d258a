"""Run directories -> tables on the terminal, in Markdown, CSV and LaTeX, and one self-contained HTML page with figures.

One record model (`record`) is read from the files that training wrote (`reading`), compared (`compare`) and turned into
`sections` of words, tables and figures; the renderers only say them. Needs no torch, and jinja2 for HTML alone.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from campfire.errors import UsageError

if TYPE_CHECKING:
    from campfire.report.records.compare import Report
    from campfire.report.sections.section import Section

__all__ = ["render", "save", "write", "write_report", "write_run_report"]


def write_report(runs: Iterable[str | Path], output: str | Path, *, html: bool = True) -> Path:
    """Compare runs in the folder ``output``: ``report.md``, its ``figures/``, and ``report.html``, whose path returns.

    Without ``html`` only ``report.md`` is written, whose path returns.

    Raises:
        UsageError: a folder is no run, the runs are of different data, or ``output`` is a file or a run directory other
            than the only one reported on.
        CheckpointError: no run's record can be read.
        CampfireError: jinja2 is missing; ``report.md`` is there all the same.
    """
    from campfire.report.records.compare import load

    return write(load(runs), Path(output), html)


def write_run_report(run_dir: str | Path) -> Path:
    """Write ``report.md`` into a run's own directory, without figures. Raises as `write_report` does."""
    return write_report([run_dir], run_dir, html=False)


def write(report: "Report", output: Path, html: bool = True) -> Path:
    """`write_report` of runs that were compared already."""
    from campfire.report.contents import sections
    from campfire.report.renderers.markdown import render as markdown

    _check_output(report, output)
    found = sections(report, draw=html)
    links = _figures(output, found) if html else {}
    save(output / "report.md", markdown(report, found, links))
    return save(output / "report.html", render(report, "html", found)) if html else output / "report.md"


def render(report: "Report", format: str, found: "Sequence[Section] | None" = None) -> str:
    """The report as the text of one file: html, markdown (without figures), csv or latex."""
    from campfire.report.contents import sections
    from campfire.report.renderers import markdown, tabular

    found = sections(report, draw=format == "html") if found is None else found
    if format == "html":
        from campfire.report.renderers import html

        return html.render(report, found)
    if format == "csv":
        return tabular.to_csv(report)
    return tabular.to_latex(report, found) if format == "latex" else markdown.render(report, found)


def _check_output(report: "Report", output: Path) -> None:
    own = len(report.runs) == 1 and output.resolve() == report.runs[0].path.resolve()
    if output.exists() and not output.is_dir():
        raise UsageError(f"the report needs a folder; {str(output)!r} is a file: give another --output")
    if (output / "status.json").exists() and not own:
        raise UsageError(f"{str(output)!r} holds a run of its own: give another --output")


def _figures(output: Path, found: "Sequence[Section]") -> dict[str, str]:
    """Save the figures beside the Markdown; figure -> path."""
    from campfire.report.drawing.svg import standalone

    figures = {figure.name: figure.svg for section in found for figure in section.figures}
    paths = {name: f"figures/{name}.svg" for name in figures}
    for name, path in paths.items():
        save(output / path, standalone(figures[name]))
    return paths


def save(path: Path, text: str) -> Path:
    """Write whole or not at all: a reader never sees half a file.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}; give another place") from error
    return path
