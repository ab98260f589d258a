"""``campfire export``: a network in a format that other programs read."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campfire.cli.flags import Parser
from campfire.cli.network_options import add_network_options, settle_sparsity
from campfire.cli.targets import require_free
from campfire.errors import UnknownName, UsageError

NOT_CHECKED = {
    "onnx": "onnxruntime is not installed; pip install 'campfire-sparse[onnx]'",
    "c": "there is no C compiler here (cc)",
}


def parser() -> Parser:
    """Everything ``campfire export`` understands."""
    own = Parser(
        prog="campfire export",
        description="Write a network in a format that other programs read. What is written is run and compared where that "
        "can be; a file that computes something else is not kept (exit code 4).",
        epilog="Formats: dense, packed, onnx, pt2, and what else is in campfire/export. --list says what each is.",
    )
    own.add_argument(
        "name", nargs="?", metavar="RUN|FILE|MODEL", help="a run or checkpoint; a file, with --model; a model"
    )
    own.add_argument("--format", default="onnx", metavar="NAME", help="onnx, pt2, dense, packed, ... (default: onnx)")
    own.add_argument("-o", "--output", metavar="FILE", help="the file to write")
    own.add_argument(
        "--sparse", action="store_true", help="of onnx: leave zeros out of the file; runtimes put them back"
    )
    own.add_argument("--pixels", action="store_true", help="take pixels in [0, 1], and normalise them inside; of a run")
    own.add_argument("--values", metavar="HOW", help="of packed: int8 or codebook:BITS; as they are by default")
    own.add_argument("--list", action="store_true", help="print the formats, and stop")
    add_network_options(own)
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Export as the flags say."""
    args = parser().parse(argv)
    from campfire.export import REGISTRY

    if args.list:
        known = {name: format.summary for name, format in sorted(REGISTRY.items())}
        wide = max(map(len, known))
        print(json.dumps(known) if args.json else "\n".join(f"{n:{wide}}  {text}" for n, text in known.items()))
        return 0
    if args.format not in REGISTRY:
        raise UnknownName("export format", args.format, REGISTRY)
    if args.name is None or args.output is None:
        raise UsageError("say what to export, and where to: campfire export RUN --format onnx --output FILE")
    found = _written(args)
    print(json.dumps(found) if args.json else _text(found))
    return 0


def _written(args: Namespace) -> dict[str, Any]:
    from campfire.cli.networks import network
    from campfire.export import Subject, export

    settle_sparsity(args, prunes=args.structure != "dense")
    require_free(Path(args.output), args.name)
    one = network(args.name, args)
    about = (one.mean, one.std, one.classes, one.structure)
    subject = Subject(one.model, one.images(2), one.pruner, *about)
    given = {"sparse": args.sparse, "pixels": args.pixels, "values": args.values}
    options = {name: value for name, value in given.items() if value}
    return {"name": one.name, "structure": one.structure, **export(subject, args.output, args.format, **options)}


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['path']}: {found['format']}, {found['bytes']:,} bytes"]
    if found["format"] == "c":
        beside = Path(found["path"])
        lines.append(
            f"with {beside.with_suffix('.h')}, and {found['weights_bytes']:,} bytes of weights: {beside.with_suffix('.bin')}"
        )
    if left_out := found.get("sparse_initializers"):
        lines.append(f"zeros left out of {len(left_out)} weights")
    if found.get("checked_by"):
        lines.append(
            f"checked with {found['checked_by']}: logits differ by {found['max_abs_difference']:.3g} at most "
            f"(the largest is {found['largest_logit']:.3g})"
        )
    elif "checked_by" in found:
        lines.append(f"not checked: {NOT_CHECKED[found['format']]}")
    return "\n".join(lines)
