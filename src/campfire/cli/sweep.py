"""``campfire sweep``: many runs from one grid, and what has become of them."""

import json
import logging
import signal
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from campfire.cli import sweep_about
from campfire.cli.flags import KeyValues, Parser
from campfire.config.recipes import find
from campfire.errors import CampfireError, UsageError
from campfire.sweep import Driver, Grid, Index, is_sweep, read_grid, records
from campfire.sweep.engines import ENGINES, make
from campfire.sweep.settling import settle
from campfire.sweep.table import aligned, cells, rows

USAGE = """campfire sweep GRID.yaml|DIR [options]
       campfire sweep status DIR            what has become of the trials
       campfire sweep table DIR [--each]    their results
       campfire sweep retry DIR [TRIAL ...] failed trials once more, at the next campfire sweep DIR"""
EPILOG = (
    "The same command goes on with a sweep that was stopped or killed. Exit codes: 0 all done or given up, 1 some failed, 3 some diverged; "
    "others: campfire --help. The grid's format, several machines, Slurm: docs/sweeps.md."
)
log = logging.getLogger("campfire")


def parser() -> Parser:
    """Everything ``campfire sweep`` understands, but its further commands."""
    own = Parser(
        prog="campfire sweep",
        usage=USAGE,
        description="Train every combination that a grid asks for, each once, and end with a report.",
        epilog=EPILOG,
    )
    own.add_argument("grid", metavar="GRID|DIR", help="a grid, or the directory of a sweep that goes on")
    own.add_argument("-o", "--output", metavar="DIR", help="the sweep's directory (default: runs/<name of the grid>)")
    own.add_argument("-j", "--jobs", type=int, metavar="N", help="trials at once (default: 1; of ray and slurm: all)")
    own.add_argument("--engine", choices=[*ENGINES], default="local", help="where trials run (default: local)")
    own.add_argument(
        "--engine-options", nargs="+", action=KeyValues, default={}, metavar="KEY=VALUE",
        help="ray: address, cpus, gpus, retries; slurm: cluster, slurm_partition, gpus_per_node, timeout_min, ...",
    )  # fmt: skip
    own.add_argument(
        "--retries", type=int, default=2, metavar="N", help="deaths of a trial without progress between (default: 2)"
    )
    own.add_argument("--no-report", action="store_true", help="write no report at the end")
    own.add_argument("--dry-run", action="store_true", help="print the trials, and stop; writes nothing")
    own.add_argument("--json", action="store_true", help="end with one JSON object on stdout")
    return own


def main(argv: Sequence[str]) -> int:
    """Sweep, or tell of a sweep."""
    if argv and argv[0] in sweep_about.ABOUT:
        return sweep_about.main(argv)
    return _sweep(parser().parse(argv))


def _sweep(args: Namespace) -> int:
    if (args.jobs is not None and args.jobs < 1) or args.retries < 0:
        raise UsageError(f"--jobs is 1 or more and --retries 0 or more; got {args.jobs} and {args.retries}")
    again = is_sweep(args.grid)
    if again and args.output:
        raise UsageError(f"{args.grid} is a sweep's own directory: it goes on there, without --output")
    grid = None if again else read_grid(find(args.grid))
    if args.dry_run:
        return _dry_run(grid, args)
    folder = Path(args.grid if again else args.output or Path("runs") / Path(args.grid).stem).resolve()
    if grid is not None and not is_sweep(folder):
        _check(grid)
    with Index.create(folder) if grid is None else settle(folder, grid) as index, _Stop() as stop, _log_on_stderr():
        if grid is not None:
            (folder / "grid.yaml").write_bytes(find(args.grid).read_bytes())
        elif not index.rows():  # killed when it had just begun
            raise UsageError(
                f"the sweep in {folder} knows no trials yet; give its grid: campfire sweep GRID -o {folder}"
            )
        engine = make(args.engine, folder, args.jobs, args.engine_options)
        Driver(index, engine, jobs=args.jobs, retries=args.retries, stopping=stop.asked).run()
    return _end(folder, args, stop)


def _dry_run(grid: Grid | None, args: Namespace) -> int:
    from campfire.sweep.settling import describe

    found = [sweep_about.plain(r) for r in records(args.grid)] if grid is None else describe(grid)
    if args.json:
        print(json.dumps({"trials": found}))
    else:
        print(f"{len(found)} trials")
        for one in found:
            print(f"  {one['name']}" + (f"  from {one['parent']}, epoch {one['epoch']}" if one["parent"] else ""))
    return 0


def _check(grid: Grid) -> None:
    """Refuse now what would fail in hours: structures, methods and rules that cannot be, each once."""
    if grid.command is not None:
        return
    from campfire import models
    from campfire.training.pruning import make_pruner

    for config in {t.config.model_copy(update={"run": None}).model_dump_json(): t.config for t in grid.trials}.values():
        if (name := config.model.name) is None:  # the images decide, and with them the layers that rules can name
            name = "resnet8"
            config = config.model_copy(update={"pruning": config.pruning.model_copy(update={"rules": {}})})
        make_pruner(models.create(name, num_classes=10, **config.model.kwargs), config)


def _end(folder: Path, args: Namespace, stop: "_Stop") -> int:
    """What is printed and returned at the end."""
    found = records(folder)
    counts = Counter(record.state for record in found)
    report = None if stop.asked() or args.no_report or not counts["done"] else _report(folder)
    if args.json:
        told = {"output": str(folder), "states": counts, "report": None if report is None else str(report)}
        print(json.dumps({**told, "rows": rows(found)}))
    else:
        print(aligned(cells(rows(found))))
        print(f"{folder}: {sweep_about.counted(counts)}" + (f"; report: {report}" if report else ""))
    return stop.code or (1 if counts["failed"] or counts["skipped"] else 3 if counts["diverged"] else 0)


def _report(folder: Path) -> Path | None:
    from campfire.report import write_report

    try:
        return write_report([folder], folder / "report")
    except CampfireError as error:  # the runs are what counts
        log.warning("no report: %s", error)
        return None


class _Stop:
    """Notes SIGTERM, SIGUSR1 and Ctrl-C, which stop the sweep once its trials have written checkpoints."""

    CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}

    def __init__(self) -> None:
        self.code = 0

    def __enter__(self) -> "_Stop":
        self._before = {number: signal.signal(number, self._note) for number in self.CODES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.code = self.CODES[signal.Signals(number)]

    def asked(self) -> bool:
        return bool(self.code)


class _log_on_stderr:
    """Meanwhile the log goes to stderr."""

    def __enter__(self) -> None:
        self._handler, self._level = logging.StreamHandler(sys.stderr), log.level
        log.addHandler(self._handler)
        log.setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        log.removeHandler(self._handler)
        log.setLevel(self._level)
