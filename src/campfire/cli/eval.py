"""``campfire eval``: accuracy of what a run produced, and whether its masks hold."""

import json
from collections.abc import Sequence

from campfire.cli.flags import Parser


def parser() -> Parser:
    """Everything ``campfire eval`` understands."""
    own = Parser(
        prog="campfire eval",
        description="Measure a run, and check that its dead weights are zero and its masks legal (else exit code 4).",
    )
    own.add_argument("path", metavar="RUN|CHECKPOINT", help="a run directory, a .pt, or a run's model.safetensors")
    own.add_argument("data", nargs="?", metavar="DATA", help="other images than the run's own")
    own.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, ... (default: auto)")
    own.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    own.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Evaluate as the flags say; 4 if a mask is violated."""
    args = parser().parse(argv)
    from campfire.training import evaluate
    from campfire.training.progress import log_on_stderr

    with log_on_stderr():
        found = evaluate(args.path, args.data, device=args.device, threads=args.threads)
    if args.json:
        print(json.dumps(found))
    else:
        print(
            f"top-1 {found['top1']:.2f} %, top-5 {found['top5']:.2f} %, loss {found['loss']:.4f} ({found['images']} images)"
        )
        print(f"zeros in the pruned layers: {found['sparsity_true']:.4f} (asked: {found['sparsity_requested']:.4f})")
        print("\n".join(["masks violated:", *found["violations"]]) if found["violations"] else "masks hold")
    return 4 if found["violations"] else 0
