"""What is to be reached on an H200 (bfloat16, channels_last, against cuDNN in benchmark mode), beside what was measured."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Results = dict[str, Any]
PEAKS = {
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 2.04e12),
}  # bf16 FLOP/s, bytes/s: data sheets


class Target(NamedTuple):
    """``at_most``: smaller is better."""

    what: str
    wanted: float
    measured: Callable[[Results], float | None]
    at_most: bool = False


def _geomean(structure: str, sparsity: float, name: str) -> Callable[[Results], float | None]:
    def of(results: Results) -> float | None:
        rows = [r for r in results.get("kernels") or [] if (r["structure"], r["sparsity"]) == (structure, sparsity)]
        return math.exp(sum(math.log(r[name]["ratio"]) for r in rows) / len(rows)) if rows else None

    return of


def _of(*keys: str) -> Callable[[Results], float | None]:
    def of(results: Results) -> float | None:
        found: Any = results
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    return of


LAYERS = "3x3 layers of ResNet-18/34/50, stages 3 to 5, batch 256"
TARGETS = (
    Target(f"{LAYERS}: forward, 70 %, 64x64", 1.4, _geomean("block-64x64", 0.7, "forward")),
    Target("forward, 70 %, 128x32", 1.8, _geomean("block-128x32", 0.7, "forward")),
    Target("forward, 80 %, 64x64", 2.0, _geomean("block-64x64", 0.8, "forward")),
    Target("forward, 80 %, 128x32", 2.6, _geomean("block-128x32", 0.8, "forward")),
    Target("d_input, 70 %, 64x64", 1.2, _geomean("block-64x64", 0.7, "d_input")),
    Target("d_values, 70 %, 64x64", 1.2, _geomean("block-64x64", 0.7, "d_values")),
    Target(
        "ResNet-18 training step, 80 %, batch 256, CUDA graphs",
        1.3,
        _of("model_resnet18", "both_bf16_ratio", "train_step"),
    ),
    Target(
        "VGG-16 training step, 80 %, batch 64, CUDA graphs", 1.3, _of("model_vgg16", "both_bf16_ratio", "train_step")
    ),
    Target("ResNet-50, batch 256: pruner's share of a step, every step", 0.01, _of("overhead", "share"), at_most=True),
)


def table(results: Results) -> list[dict[str, Any]]:
    """Every target with what was measured (None: nothing) and whether it was reached."""
    rows = []
    for target in TARGETS:
        got = target.measured(results)
        reached = (
            None if got is None or results["dry"] else got <= target.wanted if target.at_most else got >= target.wanted
        )
        rows.append({"what": target.what, "target": target.wanted, "measured": got, "reached": reached})
    return rows


def roofline(row: dict[str, Any], name: str, gpu: str) -> dict[str, Any]:
    """How near a pass of a layer comes to what the GPU allows, and which of the two limits it would meet first."""
    peak = next((p for known, p in PEAKS.items() if known in gpu), None)
    seconds = row[name]["sparse_ms"] / 1e3
    found = {"tflops": row["flops"] / seconds / 1e12, "least_gb_per_s": row["bytes"] / seconds / 1e9}
    if peak is None:
        return found
    arithmetic, traffic = row["flops"] / peak[0], row["bytes"] / peak[1]
    bound = "arithmetic" if arithmetic > traffic else "memory"
    return {**found, "of_limit": max(arithmetic, traffic) / seconds, "bound": bound}


def markdown(results: Results) -> str:
    """The same as tables."""
    machine = results["machine"]
    name = machine.get("gpu", machine["cpu"])
    lines = [
        f"# {name}{' (dry run: tiny shapes on a CPU, these figures mean nothing)' if results['dry'] else ''}",
        "",
        f"torch {machine['torch']}, Triton {machine.get('triton')}, CUDA {machine.get('cuda')}, {results['when']}. "
        f"`bash bench/gpu.sh`, {results['seconds']:.0f} s. Stages that were left out or failed: {_missing(results)}.",
        "",
        "| what | target | measured | reached |",
        "|---|---|---|---|",
    ]
    for row in results["targets"]:
        reached = (
            {None: "", True: "yes", False: "no"}[row["reached"]] if row["measured"] is not None else "not measured"
        )
        lines.append(f"| {row['what']} | {row['target']:g} | {_number(row['measured'])} | {reached} |")
    return "\n".join([*lines, "", *_kernels(results.get("kernels") or []), *_masks(results.get("masks") or {})]) + "\n"


def _missing(results: Results) -> str:
    bad = [f"{name} ({x['error']})" for name, x in results["stages"].items() if x["error"]]
    return ", ".join(bad) or "none"


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.4f}" if x < 0.1 else f"{x:.2f}"


def _kernels(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| blocks | layer | zeros | forward | d_input | d_values | TFLOP/s forward | of the limit | bound by |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        near = row["roofline"]["forward"]
        ratios = " | ".join(f"{row[p]['ratio']:.2f}" for p in ("forward", "d_input", "d_values"))
        limit = f"{near['of_limit']:.2f} | {near['bound']}" if "bound" in near else " | "
        lines.append(
            f"| {row['structure']} | {row['layer']} | {1 - row['density']:.4f} | {ratios} | {near['tflops']:.0f} | {limit} |"
        )
    return [*lines, ""] if rows else []


def _masks(found: dict[str, Any]) -> list[str]:
    lines = ["| masks of ResNet-50 | ours, ms | host, ms | topk or touch, ms |", "|---|---|---|---|"]
    for name in ("ck", "fine", "window", "reapply"):
        if name in found:
            x = found[name]
            other = x.get("topk_ms", x.get("touch_ms"))
            lines.append(f"| {name} | {x['ours_ms']:.3f} | {_number(x.get('ours_host_ms'))} | {other:.3f} |")
    return [*lines, ""] if found else []
