"""``campfire train``: the flags of a run, its configuration, and what is printed at its end."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from campfire.cli.flags import Parser, add_options
from campfire.config import Config, Layer, from_file, from_sets, load, pinned, to_yaml

EPILOG = "Later wins: defaults < --config < --set < flags. Exit codes: campfire --help."


def parser() -> Parser:
    """Everything ``campfire train`` understands."""
    own = Parser(
        prog="campfire train",
        description="Train a CNN, dense or sparse, and write a run directory.",
        usage="campfire train [DATA] [options]",
        epilog=EPILOG,
    )
    own.add_argument(
        "data.source", nargs="?", metavar="DATA", default=argparse.SUPPRESS, help="same as --data (default: digits)"
    )
    own.add_argument("-o", "--output", metavar="DIR", help="run directory (default: runs/<time>-<model>-<data>)")
    own.add_argument("-c", "--config", metavar="FILE", help="YAML file of sections, such as a run's config.yaml")
    own.add_argument("--set", action="append", default=[], metavar="A.B=C", help="one value of the configuration")
    own.add_argument(
        "--resume", nargs="?", const="auto", metavar="auto|PATH",
        help="continue last.pt of the output if it is there, or a checkpoint or run directory",
    )  # fmt: skip
    own.add_argument("--allow-config-change", action="store_true", help="resume with another configuration")
    own.add_argument(
        "--allow-world-change", action="store_true", help="resume with another number of processes (torchrun)"
    )
    own.add_argument("--overwrite", action="store_true", help="replace the run in the output directory")
    own.add_argument(
        "--print-config", action="store_true", help="print the configuration and where it is from, and stop"
    )
    own.add_argument("--dry-run", action="store_true", help="print what would be pruned, and stop; writes nothing")
    own.add_argument("--json", action="store_true", help="end with one JSON object on stdout instead of a table")
    add_options(own)
    return own


def main(argv: Sequence[str]) -> int:
    """Train as the flags say."""
    args = parser().parse(argv)
    flags = {path: value for path, value in vars(args).items() if "." in path}
    layers = [from_file(args.config)] if args.config else []
    config, origins = load(*layers, from_sets(args.set), Layer("flag", flags))
    if args.print_config or args.dry_run:
        if _first():
            print(to_yaml(config, origins), end="") if args.print_config else _dry_run(config)
        return 0
    from campfire.training import train
    from campfire.training.progress import log, log_on_stderr

    names = ("output", "resume", "overwrite", "allow_config_change", "allow_world_change")
    with log_on_stderr(_first()) as console:
        if layers and (said := pinned(layers[0], config)):
            log.warning("warning: %s: %s", args.config, ", ".join(said))
        result = train(config, console=console, **{name: getattr(args, name) for name in names})
    if _first():
        print(json.dumps(result.summary)) if args.json else _print_table(result.summary)
    return 0


def _first() -> bool:
    """Whether this is the process that speaks, where torchrun started several."""
    return int(os.environ.get("RANK", "0")) == 0


def _dry_run(config: Config) -> None:
    from campfire.training.build import build

    parts = build(config)
    print(
        f"{parts.config.model.name} on {parts.data.name}: {config.optim.epochs} epochs of {parts.steps_per_epoch} steps"
    )
    print(parts.report() if parts.pruner is None else f"at the end of the schedule:\n{parts.pruner.forecast()}")


def _print_table(summary: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    rows = {
        "model": f"{summary['model']} on {summary['data']}, {summary['structure']}",
        "top-1 / top-5": f"{summary['top1']:.2f} % / {summary['top5']:.2f} %",
        "sparsity asked / true": f"{summary['sparsity_requested']:.4f} / {summary['sparsity_true']:.4f}",
        "weights kept": f"{summary['kept_weights']:,} of {summary['weights']:,}",
        "layers pruned": f"{sum(r['structure'] is not None for r in summary['layers'])} of {len(summary['layers'])}",
        "epochs": f"{summary['epochs']} in {summary['seconds']:.1f} s",
        "run directory": summary["output"],
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
