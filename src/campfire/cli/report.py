"""``campfire report``: runs side by side, as tables and figures in one file or several."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from campfire import report
from campfire.cli.flags import Parser
from campfire.errors import UsageError

if TYPE_CHECKING:
    from campfire.report.records.compare import Report

DESCRIPTION = "Compare runs: table, Markdown, CSV, LaTeX, and an HTML page with figures that opens anywhere."
ENDINGS = {"html": "html", "markdown": "md", "csv": "csv", "latex": "tex"}
FILES = {
    "html": "one page with all figures",
    "markdown": "the words and tables",
    "csv": "a row a run",
    "latex": "the tables for booktabs",
}


def parser() -> Parser:
    """Everything ``campfire report`` understands."""
    own = Parser(prog="campfire report", description=DESCRIPTION)
    own.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN|SWEEP",
        help="a folder that campfire train or campfire sweep wrote, or a folder of such runs",
    )  # fmt: skip
    for name, what in FILES.items():
        own.add_argument(f"--{name}", metavar="FILE", help=f"write {what}, and no folder; - is stdout")
    where = "folder for report.html, report.md and figures (default: the run itself when there is one, else ./report)"
    own.add_argument("-o", "--output", type=Path, metavar="DIR", help=where)
    own.add_argument("--no-html", action="store_true", help="in that folder, only report.md")
    own.add_argument("--separate", action="store_true", help="a report for each data set, its name in that of the file")
    own.add_argument("--json", action="store_true", help="print the comparison as one JSON object, last on stdout")
    return own


def main(argv: Sequence[str]) -> int:
    """Compare the runs that the arguments name."""
    args = parser().parse(argv)
    asked = {name: getattr(args, name) for name in FILES if getattr(args, name)}
    if list(asked.values()).count("-") + args.json > 1:
        raise UsageError("only one of the formats, or --json, can go to stdout")
    if asked and (args.output or args.no_html):
        raise UsageError("--output and --no-html are for a folder of files; a format's flag names its own file")

    from campfire.report.records.compare import load, load_by_data
    from campfire.report.renderers import terminal

    found = load_by_data(args.runs) if args.separate else {"": load(args.runs)}
    aside = "-" in asked.values() or args.json
    written = []
    for data, one in found.items():
        terminal.show(one, stderr=aside)
        written += _files(one, asked, data) if asked else [_folder(one, args, data)]
    if args.json:
        print(_json(found, written, args.separate))
    else:
        print("\n".join(f"report: {path}" for path in written), file=sys.stderr if aside else sys.stdout)
    return 0


def _files(one: "Report", asked: dict[str, str], data: str) -> list[str]:
    written = []
    for name, place in asked.items():
        text = report.render(one, name)
        if place == "-":
            print(text, end="")
            continue
        path = Path(place)
        if path.is_dir():
            raise UsageError(
                f"--{name} names a file, such as {path / f'report.{ENDINGS[name]}'}; {place!r} is a folder"
            )
        path = path.with_name(f"{path.stem}-{_file_name(data)}{path.suffix}") if data else path
        written.append(str(report.save(path, text)))
    return written


def _folder(one: "Report", args: argparse.Namespace, data: str) -> str:
    alone = len(one.runs) == 1 and not data
    output = args.output or (one.runs[0].path if alone else Path("report"))
    return str(report.write(one, output / _file_name(data) if data else output, not args.no_html))


def _file_name(data: str) -> str:
    """A data set's name as one part of a path."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in data).lstrip(".") or "data"


def _json(found: dict[str, "Report"], written: Sequence[str], separate: bool) -> str:
    """One comparison with where it is, or with ``--separate`` one for each data set."""
    if separate:
        reports = [{"data": data, **one.to_dict()} for data, one in found.items()]
        return json.dumps({"output": list(written), "reports": reports}, allow_nan=False)
    output = written[0] if len(written) == 1 else list(written)
    return json.dumps({"output": output, **found[""].to_dict()}, allow_nan=False)
