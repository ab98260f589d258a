"""The comparison as a table on a terminal."""

from collections.abc import Callable

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from campfire.report.formats import plain
from campfire.report.records.columns import RESULTS, how, lede, what
from campfire.report.records.compare import Report, Row
from campfire.report.records.record import Run
from campfire.report.sections import patterns

STATES = {"done": "green", "running": "cyan", "preempted": "yellow"}  # any other: red
HEADS = {
    "top-1": "top-1",
    "vs dense": "vs\ndense",
    "requested": "zeros\nasked",
    "pruned layers": "\ntrue",
    "weights": "kept\nweights",
    "MACs": "\nMACs",
    "epochs": "epochs",
    "seconds": "seconds",
}
LEGEND = (
    "All in %, vs dense in points. Zeros are of the pruned layers, kept of the whole model. "
    "Seconds are of training with masks, which alone bring no speed."
)


def render(report: Report) -> Group:
    """The comparison, and under it what to mind, as something a rich console prints."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold", show_edge=False)
    alike = len({(row.model, row.data) for row in report.rows}) == 1
    columns = [column for column in RESULTS if column.head in HEADS]
    table.add_column("run", overflow="fold", vertical="bottom", min_width=16)
    for head in HEADS.values():
        table.add_column(head, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(_name(row, how if alike else what), *(Text(column.text(row)) for column in columns))
    drawn = [line for run in report.runs if patterns.patterned(run) for line in _patterns(run)]
    left_out = [f"{plain(one.name)} is not shown: {plain(one.reason)}" for one in report.left_out]
    warnings = [Text(f"! {warning}") for warning in [*left_out, *report.warnings]]
    return Group(Text(lede(report.rows)), table, Text(LEGEND, "dim"), *drawn, *warnings)


def show(report: Report, *, stderr: bool = False) -> None:
    """Print it; 120 columns wide where nobody is watching, so that logs do not fold."""
    watched = Console(stderr=stderr).is_terminal
    Console(stderr=stderr, highlight=False, width=None if watched else 120).print(render(report))


def _patterns(run: Run) -> list[Text]:
    drawn = Text(patterns.drawing(run), no_wrap=True, overflow="crop")
    return [Text.assemble("\n", (plain(run.name), "bold"), ": ", patterns.lede(run)), drawn]


def _name(row: Row, about: Callable[[Row], str]) -> Text:
    state = Text(f" {plain(row.state)}", STATES.get(row.state, "red")) if row.state != "done" else Text()
    return Text.assemble((plain(row.run), "bold"), state, "\n", (about(row), "dim"))
