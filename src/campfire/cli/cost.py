"""``campfire cost``: what a network costs in arithmetic, storage, memory references and energy."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from campfire.cli.flags import KeyValues, Parser
from campfire.cli.network_options import add_network_options, settle_sparsity
from campfire.errors import UsageError


def parser() -> Parser:
    """Everything ``campfire cost`` understands."""
    own = Parser(
        prog="campfire cost",
        usage="campfire cost MODEL|RUN [options]\n       campfire cost MODEL|RUN --compare A,B,...\n"
        "       campfire cost --compare RUN RUN ...",
        description="Parameters, zeros at every grain, MACs, storage, output references, balance and energy, layer by layer. "
        "Activations are counted on test images of a run; those of a model by name are of noise through random weights. "
        "--structure prunes a dense model, file or run at once, at --sparsity; one with masks of its own is refused.",
        epilog="What is counted, and how: docs/costs.md.",
    )
    own.add_argument(
        "names", nargs="*", metavar="MODEL|RUN", help="a model's name, a run directory or checkpoint, a file"
    )
    own.add_argument(
        "--compare", nargs="?", const="", metavar="A,B",
        help="structures of equal sparsity side by side; or runs, also at equal accuracy",
    )  # fmt: skip
    own.add_argument(
        "--at", type=float, metavar="TOP1", help="accuracy at which runs are compared (default: all reach it)"
    )
    add_network_options(own)
    own.add_argument(
        "--images", type=int, default=4, metavar="N", help="whose activations are counted (default: 4; 0: none)"
    )
    own.add_argument("--value-bits", type=int, default=32, metavar="N", help="of a weight or activation (default: 32)")
    own.add_argument("--array", type=int, default=16, metavar="N", help="processing elements (default: 16)")
    own.add_argument(
        "--energy", nargs="+", action=KeyValues, default={}, metavar="KEY=PJ",
        help="picojoules of mac, sram (32 bits), dram (a byte); default: 45 nm, float32",
    )  # fmt: skip
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Count as the flags say."""
    args = parser().parse(argv)
    _settle(args)
    from campfire.cli import cost_subjects, cost_text
    from campfire.cli.networks import network

    if args.compare is None:
        found = cost_subjects.counted(network(args.names[0], args), args)
        print(json.dumps(found) if args.json else cost_text.layers(found))
        return 0
    given = cost_subjects.structures_of(args) if args.compare else cost_subjects.runs(args)
    found = cost_subjects.compared(given, args)
    print(json.dumps(found) if args.json else cost_text.side_by_side(found))
    return 0


def _settle(args: Namespace) -> None:
    """A run directory after --compare is one of the runs, not a structure."""
    if args.compare and Path(args.compare).exists():
        args.names, args.compare = [args.compare, *args.names], ""
    for name in ("size", "value_bits", "array"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} is a number above 0; got {getattr(args, name)}")
    if args.images < 0:
        raise UsageError(f"--images is a number of images, or 0; got {args.images}")
    if args.compare == "":
        if len(args.names) < 2:
            raise UsageError("--compare wants structures by commas, or two or more runs")
    elif len(args.names) != 1:
        wanted = (
            "one model, run or file" if not args.names else "one model, run or file; several runs go with --compare"
        )
        raise UsageError(f"give {wanted}; got {len(args.names)}")
    if args.compare == "" and args.structure != "dense":
        raise UsageError(f"runs are compared as they are; leave --structure {args.structure} out")
    settle_sparsity(args, prunes=bool(args.compare) or args.structure != "dense")
