"""``campfire sweep status``, ``table`` and ``retry``: what has become of a sweep, and its failed trials once more."""

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campfire.cli.flags import Parser
from campfire.sweep import Record, records
from campfire.sweep.retrying import retry
from campfire.sweep.table import aligned, cells, progress, rows

STATES = ("done", "running", "pending", "failed", "diverged", "pruned", "skipped")  # as they are listed


def main(argv: Sequence[str]) -> int:
    """Tell of a sweep; ``argv[0]`` says what."""
    run, flags = ABOUT[argv[0]]
    own = Parser(prog=f"campfire sweep {argv[0]}", description=run.__doc__)
    own.add_argument("folder", metavar="DIR", help="the directory of a sweep")
    for flag, keywords in flags.items():
        own.add_argument(flag, **keywords)
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    args = own.parse(argv[1:])
    return run(Path(args.folder), records(args.folder), args)


def counted(counts: Counter[str]) -> str:
    """``24 trials: 20 done, 4 pending``."""
    return f"{counts.total()} trials: " + ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def _status(folder: Path, found: Sequence[Record], args: Namespace) -> int:
    """How many trials are done, which are at work and how far, and why others ended."""
    counts = Counter(record.state for record in found)
    if args.json:
        print(json.dumps({"output": str(folder), "states": counts, "trials": [plain(record) for record in found]}))
        return 0
    print(f"{folder}: {counted(counts)}")
    told = [r for r in found if r.state != "done" and (r.state != "pending" or r.starts)]
    lines = [[f"  {r.state}", r.name, r.reason or progress(r), f"start {r.starts}"] for r in told]
    print(aligned(lines) if lines else "", end="\n" if lines else "")
    return 0


def _table(folder: Path, found: Sequence[Record], args: Namespace) -> int:
    """Top-1 and zeros of the trials, mean and spread over seeds."""
    table = rows(found, args.each)
    if args.json:
        print(json.dumps({"output": str(folder), "rows": table}))
    else:
        print(aligned(cells(table)))
    return 0


def _retry(folder: Path, found: Sequence[Record], args: Namespace) -> int:
    """Failed and skipped trials, or those named, once more: from their checkpoints, at the next campfire sweep DIR."""
    chosen = retry(folder, args.trials, args.fresh)
    if args.json:
        print(json.dumps({"output": str(folder), "trials": chosen}))
    else:
        print(
            f"{len(chosen)} trials to be tried again{': ' * bool(chosen)}{', '.join(chosen)}; campfire sweep {folder}"
        )
    return 0


ABOUT: dict[str, tuple[Any, dict[str, dict[str, Any]]]] = {
    "status": (_status, {}),
    "table": (_table, {"--each": {"action": "store_true", "help": "one line a trial, not one for all seeds"}}),
    "retry": (
        _retry,
        {
            "trials": {"nargs": "*", "metavar": "TRIAL", "help": "which (default: all that failed or were skipped)"},
            "--fresh": {"action": "store_true", "help": "delete what they have done, and begin anew"},
        },
    ),
}


def plain(record: Record) -> dict[str, Any]:
    """A record for JSON."""
    return {**vars(record), "path": str(record.path)}
