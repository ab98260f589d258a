"""Patterned 3x3 layers beside the dense library and the kernel that knows no patterns.

    python bench/patterns.py --net vgg16 --batch 16 --connectivity 0.5

Every kernel keeps 4 of its 9 weights, by the best of 8 patterns, and of the kernels a share lives. Milliseconds of each
pass are medians over rounds in which the three take turns; ratios are medians of the rounds' own. Activations are in each
kernel's own format; dense is the library on the same masked weight, in the faster of its two. Prints JSON.
"""

import argparse
import json
import math
import statistics
import time

import torch

from campfire.bench.candidates import pattern_mask
from campfire.bench.kernels import PASSES, _dense, _sparse, keep_memory
from campfire.bench.layers import Layer, layers_of
from campfire.bench.timing import interleaved, machine, ratio
from campfire.kernels import KERNELS
from campfire.packed import pack

KINDS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}


def timed(layer: Layer, batch: int, connectivity: float, rounds: int, passes: list[str]) -> dict:
    """Of one layer: milliseconds and ratios, pass by pass; and how long it took to compile."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(layer.shape, generator=generator)
    mask = pattern_mask(weight, 1 - connectivity * 4 / 9)
    packed = pack(weight, mask, "tap")
    x = torch.randn(batch, layer.shape[1], *layer.size, generator=generator)
    dy = torch.randn(layer.conv.output(tuple(x.shape), layer.shape), generator=generator)
    runs = {name: _dense(weight * mask.keep, x, dy, layer, form) for name, form in KINDS.items()}
    for name in ("lanes", "codegen"):
        runs[name] = _sparse(packed, KERNELS[name].prepare(packed, layer.conv), x, dy, KERNELS[name].format)
    found = {"layer": str(layer), "count": layer.count, "density": 1 - mask.sparsity}
    for name in passes:
        start = time.perf_counter()
        runs["codegen"][name]()
        found[name] = {"first_s": time.perf_counter() - start}
        with torch.no_grad():
            times = interleaved({kernel: run[name] for kernel, run in runs.items()}, rounds)
        best = min(KINDS, key=lambda form: statistics.median(times[form]))
        for kernel in ("lanes", "codegen"):
            found[name][kernel] = ratio(times, best, kernel)
            found[name][f"{kernel}_ms"] = statistics.median(times[kernel])
        found[name]["dense_ms"] = statistics.median(times[best])
    return found


def summary(rows: list[dict], name: str) -> dict:
    """Geometric means over shapes, and ratios of the total times of all layers."""
    total = {k: sum(r["count"] * r[name][f"{k}_ms"] for r in rows) for k in ("dense", "lanes", "codegen")}
    told = {}
    for kernel in ("lanes", "codegen"):
        mean = math.exp(statistics.fmean(math.log(r[name][kernel]) for r in rows))
        told[kernel] = {"geomean": round(mean, 2), "total": round(total["dense"] / total[kernel], 2)}
    return told


def step(rows: list[dict], passes: list[str], kernel: str) -> float:
    """The dense library's time for all passes of all layers over a kernel's."""
    times = [sum(r["count"] * r[name][f"{k}_ms"] for r in rows for name in passes) for k in ("dense", kernel)]
    return round(times[0] / times[1], 2)


def main() -> None:
    """Time every 3x3 layer of stride 1 of a network but the first."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="of the image")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--connectivity", type=float, default=1.0, help="kernels that live")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--passes", default=",".join(PASSES))
    parser.add_argument("--only", default="", help="layers whose name has this in it")
    given = parser.parse_args()
    keep_memory()
    passes = given.passes.split(",")
    layers = [
        layer
        for layer in layers_of(given.net, given.size)
        if layer.kind == "3x3" and layer.conv.stride == 1 and given.only in str(layer)
    ]
    rows = [timed(layer, given.batch, given.connectivity, given.rounds, passes) for layer in layers]
    told = {"given": vars(given), "summary": {name: summary(rows, name) for name in passes}, "layers": rows}
    told["all_passes"] = {kernel: step(rows, passes, kernel) for kernel in ("lanes", "codegen")}
    print(json.dumps({**told, "machine": machine()}))


if __name__ == "__main__":
    main()
