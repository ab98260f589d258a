"""Run directories -> a table on the terminal, Markdown, and one self-contained HTML page with plots.

One record model (`record`) is read from the files that training wrote (`reading`) and compared (`compare`); the
renderers (`terminal`, `markdown`, `html`) only say it. Needs neither torch nor, for the first two, matplotlib.
"""

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from campfire.errors import UsageError

if TYPE_CHECKING:
    from campfire.report.compare import Report

__all__ = ["main", "write_report", "write_run_report"]


def write_report(runs: Iterable[str | Path], output: str | Path, *, html: bool = True) -> Path:
    """Compare runs in the folder ``output``: ``report.md``, its ``figures/``, and ``report.html``, whose path returns.

    Without ``html`` only ``report.md`` is written, whose path returns; that needs no extra.

    Raises:
        UsageError: a folder is no run, or ``output`` is a file or a run directory other than the only one reported on.
        CheckpointError: a run's record is damaged.
        CampfireError: matplotlib or jinja2 is missing; ``report.md`` is there all the same.
    """
    from campfire.report.compare import load

    return _write(load(runs), Path(output), html)


def write_run_report(run_dir: str | Path) -> Path:
    """Write ``report.md`` into a run's own directory; needs no extra. Raises as `write_report` does."""
    return write_report([run_dir], run_dir, html=False)


def main(argv: Sequence[str] | None = None) -> int:
    """``campfire report RUN... [--output DIR] [--no-html] [--json]``; raises as `write_report` does."""
    options = _parser().parse_args(argv)

    from campfire.report import terminal
    from campfire.report.compare import load

    report = load(options.runs)
    terminal.show(report, stderr=options.json)
    default = report.runs[0].path if len(report.runs) == 1 else Path("report")
    path = _write(report, options.output or default, not options.no_html)
    if options.json:
        print(json.dumps({"output": str(path), **report.to_dict()}, allow_nan=False))
    else:
        print(f"report: {path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("campfire report", description="Compare runs: table, Markdown, HTML with plots.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a folder that campfire train wrote")
    where = "folder to write to (default: the run itself when there is one, else ./report)"
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=where)
    parser.add_argument("--no-html", action="store_true", help="Markdown only; needs neither matplotlib nor jinja2")
    parser.add_argument("--json", action="store_true", help="print the comparison as one JSON object, last on stdout")
    return parser


def _write(report: "Report", output: Path, html: bool) -> Path:
    from campfire.report import markdown

    _check_output(report, output)
    _save(output / "report.md", markdown.render(report))
    if not html:
        return output / "report.md"

    from campfire.report import html as page
    from campfire.report import plots

    curves = plots.curves(report.runs)
    drawn = {run.name: plots.layers(run, plots.turn_of(report.runs, i)) for i, run in enumerate(report.runs)}
    layers = {name: svg for name, svg in drawn.items() if svg}
    text = page.render(report, curves, layers)
    links = _figures(output, curves), _figures(output, layers, "layers-")
    _save(output / "report.md", markdown.render(report, *links))
    return _save(output / "report.html", text)


def _check_output(report: "Report", output: Path) -> None:
    own = len(report.runs) == 1 and output.resolve() == report.runs[0].path.resolve()
    if output.exists() and not output.is_dir():
        raise UsageError(f"the report needs a folder; {str(output)!r} is a file: give another --output")
    if (output / "status.json").exists() and not own:
        raise UsageError(f"{str(output)!r} holds a run of its own: give another --output")


def _figures(output: Path, svgs: Mapping[str, str], prefix: str = "") -> dict[str, str]:
    """Save the plots beside the Markdown, numbered if they belong to runs, whose names may not be file names."""
    from campfire.report.svg import standalone

    paths = {name: f"figures/{prefix}{i if prefix else name}.svg" for i, name in enumerate(svgs, 1)}
    for name, path in paths.items():
        _save(output / path, standalone(svgs[name]))
    return paths


def _save(path: Path, text: str) -> Path:
    """Write whole or not at all: a reader never sees half a file."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {str(path)!r}: {error.strerror}; give another --output") from error
    return path
