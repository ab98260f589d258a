"""``campfire compile``: the code that is generated for a run's patterned layers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from campfire.cli.flags import Parser


def parser() -> Parser:
    """Everything ``campfire compile`` understands."""
    own = Parser(
        prog="campfire compile",
        description="Generate code for the patterned layers of a run, and compile it into the cache, as else the first batch would. "
        "For a program of its own in C: campfire export RUN --format c.",
        epilog="What is generated, and how fast it is: docs/compiler.md.",
    )
    own.add_argument("path", metavar="RUN|CHECKPOINT", help="a run directory, a .pt, or a run's model.safetensors")
    own.add_argument("--batch", type=int, metavar="N", help="images of a batch (default: as the run trained)")
    own.add_argument(
        "--tune", action="store_true", help="first time a few register tiles for each layer, and keep the best"
    )
    own.add_argument("--emit", metavar="DIR", help="write the sources into a new or empty folder; compiles nothing")
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Compile, or write; 1 where something could not be compiled."""
    args = parser().parse(argv)
    import torch

    from campfire.compress.compiling import require_empty, sources
    from campfire.errors import UsageError
    from campfire.training.evaluation import load_run

    if args.batch is not None and args.batch < 1:
        raise UsageError(f"--batch is 1 or more; got {args.batch}")
    if args.emit:
        require_empty(Path(args.emit))
    run = load_run(args.path)
    if run.pruner is None:
        raise UsageError(f"{args.path} is dense: there are no patterns; train with --structure pattern")
    batch = args.batch or run.config.data.batch_size
    given = run.model, run.pruner.masks, torch.zeros(batch, run.channels, run.image_size, run.image_size)
    found = sources(*given)
    tuned = found.tune() if args.tune else {}
    found = sources(*given) if args.tune else found
    told: dict[str, Any] = {
        "run": str(args.path),
        "batch": batch,
        "tuned": tuned,
        "layers": {layer.name: layer.figures for layer in found.layers},
        "why_not": found.why_not,
    }
    if args.emit:
        told["emitted"] = [str(path) for path in found.emit(Path(args.emit))]
    else:
        told["compiled"] = found.compile()
    print(json.dumps(told) if args.json else _text(told))
    return int(bool(told.get("compiled", {}).get("failed")))


def _text(told: dict[str, Any]) -> str:
    wide = max(map(len, [*told["layers"], *told["why_not"]]), default=0)
    lines = [
        f"{name:{wide}}  {x['patterns']:2} patterns, {x['kernels']} kernels alive ({x['alive']:.0%}), index {x['index_bytes']:,} bytes"
        for name, x in told["layers"].items()
    ]
    lines += [f"{name:{wide}}  none: {'; '.join(reasons)}" for name, reasons in told["why_not"].items()]
    for name, passes in told["tuned"].items():
        best = (f"{p} {max([1.0, *ratios.values()]):.2f}" for p, ratios in passes.items())
        lines.append(f"{name:{wide}}  times faster than untuned: {', '.join(best)}")
    if "emitted" in told:
        return "\n".join([*lines, f"wrote {len(told['emitted'])} files"])
    done = told["compiled"]
    sizes = f"{done['source_bytes']:,} bytes of C++, {done['library_bytes']:,} compiled"
    lines.append(f"{done['sources']} sources, {sizes}, in {done['seconds']} s")
    return "\n".join(lines + [f"failed: {name}" for name in done["failed"]])
