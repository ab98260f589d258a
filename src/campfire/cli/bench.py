"""``campfire bench``: time the parts on this machine, beside what one would use otherwise."""

import json
from collections.abc import Sequence
from typing import Any

from campfire.cli.flags import Parser


def parser() -> Parser:
    """Everything ``campfire bench`` understands."""
    own = Parser(prog="campfire bench", description="Time the parts on this machine, interleaved; medians and ratios.")
    what = own.add_subparsers(dest="what", required=True, metavar="WHAT")
    masks = what.add_parser("masks", help="mask updates of a whole model, against torch.topk in each layer")
    masks.add_argument("--model", default="resnet50", metavar="NAME", help="(default: resnet50)")
    masks.add_argument("--sparsity", type=float, default=0.7, metavar="S", help="fraction of zeros (default: 0.7)")
    masks.add_argument("--rounds", type=int, default=9, metavar="N", help="medians over so many turns (default: 9)")
    masks.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    masks.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Run one benchmark."""
    args = parser().parse(argv)
    import torch

    from campfire.bench.masks import bench_masks

    if args.threads:
        torch.set_num_threads(args.threads)
    found = bench_masks(args.model, args.sparsity, args.rounds)
    print(json.dumps(found) if args.json else _text(found))
    return 0


def _text(found: dict[str, Any]) -> str:
    machine = found["machine"]
    lines = [
        f"{found['model']}, {found['layers']} convolutions at {found['sparsity']:.0%} zeros, medians of {found['rounds']}, "
        + ("native code" if found["native"] else "torch alone")
    ]
    for name in ("ck", "fine", "window"):
        x = found[name]
        lines.append(
            f"  {name:7} update   {x['ours_ms']:8.1f} ms   topk {x['topk_ms']:8.1f} ms   ratio {x['ratio']:.3f}"
        )
    x = found["reapply"]
    lines.append(f"  re-application   {x['ours_ms']:8.1f} ms   touch {x['touch_ms']:7.1f} ms   ratio {x['ratio']:.3f}")
    return "\n".join(
        [*lines, f"{machine['cpu']}, {machine['isa']}, {machine['threads']} threads, torch {machine['torch']}"]
    )
