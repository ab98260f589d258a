"""``campfire bench``: time the parts on this machine, beside what one would use otherwise."""

import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from campfire.cli.flags import Parser, zeros
from campfire.errors import UsageError

PASSES = ("forward", "d_input", "d_values")


def parser() -> Parser:
    """Everything ``campfire bench`` understands."""
    own = Parser(prog="campfire bench", description="Time the parts on this machine, interleaved; medians and ratios.")
    what = own.add_subparsers(dest="what", required=True, metavar="WHAT")
    masks = what.add_parser("masks", help="mask updates of a whole model, against torch.topk in each layer")
    masks.set_defaults(run=_masks)
    kernels = what.add_parser("kernels", help="three passes of every convolution, against the dense library")
    kernels.set_defaults(run=_kernels)
    kernels.add_argument(
        "--structures",
        default="hrbp",
        metavar="A,B",
        help="masks to time: hrbp, hrbp++, hrbp-32x4, block-16x4, ck, window, fine, ...",
    )
    kernels.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="(default: float32)"
    )
    whole = what.add_parser("model", help="inference and training steps of a compressed model, against dense ones")
    whole.set_defaults(run=_model)
    whole.add_argument("--structure", default="tiles", metavar="NAME", help="of every layer it fits (default: tiles)")
    whole.add_argument("--best", action="store_true", help="also dense inference by torch.compile with frozen weights")
    sizes = what.add_parser("sizes", help="bytes of packed files, beside a formula, csr and a general compressor")
    sizes.set_defaults(run=_sizes)
    sizes.add_argument("structures", nargs="+", metavar="STRUCTURE", help="as --structure of campfire train")
    for one in (kernels, whole):
        one.add_argument("--batches", default="16,1", metavar="N,M", help="images (default: 16,1)")
        one.add_argument("--size", type=int, default=224, metavar="N", help="height and width of the images")
    for one in (masks, kernels, whole):
        one.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: an NVIDIA GPU (default: cpu)")
    for one in (masks, kernels, whole, sizes):
        what = "a name, or a run whose network is timed as it is" if one is whole else "a name"
        one.add_argument("--model", default="resnet50", metavar="NAME", help=f"{what} (default: resnet50)")
        one.add_argument("--sparsity", type=zeros, default=0.7, metavar="S", help="fraction of zeros (default: 0.7)")
        if one is not sizes:
            one.add_argument(
                "--rounds", type=int, default=9, metavar="N", help="medians over so many turns (default: 9)"
            )
        one.add_argument("--threads", type=int, metavar="N", help="CPU threads")
        one.add_argument("--json", action="store_true", help="print one JSON object in one line")
    return own


def main(argv: Sequence[str]) -> int:
    """Run one benchmark."""
    args = parser().parse(argv)
    import torch

    if args.threads:
        torch.set_num_threads(args.threads)
    found, text = args.run(args)
    print(json.dumps(found) if args.json else text)
    return 0


def _masks(args: Namespace) -> tuple[dict[str, Any], str]:
    from campfire.bench.masks import bench_masks

    found = bench_masks(args.model, args.sparsity, args.rounds, device=args.device)
    return found, _of_masks(found)


def _kernels(args: Namespace) -> tuple[dict[str, Any], str]:
    from campfire.bench.kernels import bench_kernels

    structures = args.structures.split(",")
    sizes = (args.model, _batches(args), args.rounds, args.size)
    found = bench_kernels(structures, args.sparsity, *sizes, dtype=args.dtype, device=args.device)
    return found, _of_kernels(found)


def _model(args: Namespace) -> tuple[dict[str, Any], str]:
    from campfire.bench.model import bench_model

    sizes = (args.sparsity, _batches(args), args.rounds, args.size)
    found = bench_model(args.model, args.structure, *sizes, best=args.best, device=args.device)
    return found, _of_model(found)


def _sizes(args: Namespace) -> tuple[dict[str, Any], str]:
    from campfire.bench.sizes import bench_sizes, text

    found = bench_sizes(args.model, args.structures, args.sparsity)
    return found, text(found)


def _batches(args: Namespace) -> list[int]:
    return [whole_number(n, "--batches") for n in args.batches.split(",")]


def whole_number(given: str, flag: str) -> int:
    """A whole number above 0 from a list on the command line."""
    if not given.strip().isdigit() or int(given) < 1:
        raise UsageError(f"{flag} is a list of numbers above 0, such as 16,1; got {given!r}")
    return int(given)


def _of_kernels(found: dict[str, Any]) -> str:
    lines = [
        f"{found['model']} at {found['sparsity']:.0%} zeros, {found['dtype']}, medians of {found['rounds']}: x faster"
    ]
    for row in found["layers"]:
        ratios = "  ".join(f"{row[p]['ratio']:5.2f} (rho {row[p]['rho']:.2f})" for p in PASSES)
        lines.append(f"  {row['structure']:11} batch {row['batch']:3}  {row['layer']:24} {ratios}")
    for name, by_batch in found["by_structure"].items():
        for batch, x in by_batch.items():
            for kind in ("geomean", "total"):
                lines.append(f"  {name:11} batch {batch:>3}  {kind:24} " + _ratios(x[kind]))
            for kind, y in x["by_kind"].items():
                lines.append(f"  {name:11} batch {batch:>3}  {'geomean of ' + kind:24} " + _ratios(y["geomean"]))
    return "\n".join([*lines, _machine(found["machine"])])


def _of_model(found: dict[str, Any]) -> str:
    lines = [
        f"{found['model']}, {found['structure']}, {found['sparsity_true']:.2%} zeros, medians of {found['rounds']}"
    ]
    for name in [key for key, x in found.items() if isinstance(x, dict) and "sparse_ms" in x]:
        x = found[name]
        kinds = ("dense", "dense_bf16", "best", "best_bf16", "sparse", "sparse_bf16")
        times = "   ".join(f"{kind} {x[f'{kind}_ms']:8.1f} ms" for kind in kinds if f"{kind}_ms" in x)
        lines.append(f"  {name:13} {times}   ratio {x['ratio']:.2f}, both in bf16 {x['both_bf16_ratio']:.2f}")
    peak = found["peak_memory_mb"]
    held = "weights, gradients and optimizer state" if peak else "weights"
    lines.append(f"  {held} of the pruned layers: {found['memory_ratio']:.2f} of dense")
    if peak:
        lines.append(f"  peak memory of training: {peak['sparse']:,.0f} MB, dense {peak['dense']:,.0f} MB")
    return "\n".join([*lines, _machine(found["machine"])])


def _ratios(found: dict[str, float]) -> str:
    return "  ".join(f"{p} {found[p]:.2f}" for p in PASSES)


def _of_masks(found: dict[str, Any]) -> str:
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
    return "\n".join([*lines, _machine(found["machine"])])


def _machine(found: dict[str, Any]) -> str:
    if "gpu" in found:
        return f"{found['gpu']}, CUDA {found['cuda']}, torch {found['torch']}, Triton {found['triton']}"
    return f"{found['cpu']}, {found['isa']}, {found['threads']} threads, torch {found['torch']}"
