"""Patterned 3x3 layers beside the dense library and the kernel that knows no patterns.

    python bench/patterns.py --net vgg16 --batch 16 --connectivity 0.5

Every kernel keeps 4 of its 9 weights, by the best of 8 patterns, and of the kernels a share lives. Milliseconds of each
pass are medians over rounds in which the three take turns; ratios are medians of the rounds' own. Activations are in each
kernel's own format; dense is the library on the same masked weight, in the faster of its two. Prints JSON.
``--clock cpu`` counts what one thread computes, not the time it waits: for machines that others use as well. ``--tune``
times other tiles than the usual ones first, and says what they gain.
"""

import argparse
import json
import math
import statistics
import time
from functools import partial
from unittest import mock

import torch

from campfire.bench.candidates import pattern_mask
from campfire.bench.kernels import PASSES, _dense, _sparse, keep_memory
from campfire.bench.layers import Layer, layers_of
from campfire.bench.timing import interleaved, machine, ratio
from campfire.kernels import KERNELS, stopwatch
from campfire.kernels.clocks import Clock, Run, wall
from campfire.kernels.codegen import tuning
from campfire.mask import Mask
from campfire.packed import Packed, pack

KINDS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}


def cpu(run: Run) -> float:
    """Milliseconds that this thread computes."""
    start = time.thread_time()
    run()
    return 1e3 * (time.thread_time() - start)


CLOCKS = {"wall": wall, "cpu": cpu}


def tuned(layer: Layer, batch: int, connectivity: float, clock: Clock) -> dict[str, dict[str, float]]:
    """Of both passes how many times faster than the usual tile each other one is."""
    packed, _ = patterned(layer, connectivity)
    with mock.patch.object(tuning, "timed", partial(stopwatch.timed, clock=clock)):
        indices = KERNELS["codegen"].prepare(packed, layer.conv).indices((batch, layer.shape[1], *layer.size))
        return tuning.tune(*indices)


def patterned(layer: Layer, connectivity: float) -> tuple[Packed, Mask]:
    """Random weights of a layer, and their mask."""
    weight = torch.randn(layer.shape, generator=torch.Generator().manual_seed(0))
    mask = pattern_mask(weight, 1 - connectivity * 4 / 9)
    return pack(weight, mask, "tap"), mask


def timed(layer: Layer, batch: int, connectivity: float, rounds: int, passes: list[str], clock: Clock) -> dict:
    """Of one layer: milliseconds and ratios, pass by pass; and how long it took to compile."""
    packed, mask = patterned(layer, connectivity)
    weight, generator = packed.dense(), torch.Generator().manual_seed(1)
    x = torch.randn(batch, layer.shape[1], *layer.size, generator=generator)
    dy = torch.randn(layer.conv.output(tuple(x.shape), layer.shape), generator=generator)
    runs = {name: _dense(weight, x, dy, layer, form) for name, form in KINDS.items()}
    for name in ("lanes", "codegen"):
        runs[name] = _sparse(packed, KERNELS[name].prepare(packed, layer.conv), x, dy, KERNELS[name].format)
    found = {"layer": str(layer), "count": layer.count, "density": 1 - mask.sparsity}
    for name in passes:
        start = time.perf_counter()
        runs["codegen"][name]()
        found[name] = {"first_s": time.perf_counter() - start}
        with torch.no_grad():
            times = interleaved({kernel: run[name] for kernel, run in runs.items()}, rounds, clock)
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
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of one thread, with OMP_NUM_THREADS=1")
    parser.add_argument("--tune", action="store_true", help="first time a few tiles for each layer")
    given = parser.parse_args()
    if given.clock == "cpu" and torch.get_num_threads() > 1:
        parser.error("--clock cpu sees one thread; set OMP_NUM_THREADS=1")
    keep_memory()
    clock = CLOCKS[given.clock]
    passes = given.passes.split(",")
    layers = [
        layer
        for layer in layers_of(given.net, given.size)
        if layer.kind == "3x3" and layer.conv.stride == 1 and given.only in str(layer)
    ]
    gains = {str(x): tuned(x, given.batch, given.connectivity, clock) for x in layers if given.tune}
    rows = [timed(layer, given.batch, given.connectivity, given.rounds, passes, clock) for layer in layers]
    told = {
        "given": vars(given),
        "summary": {name: summary(rows, name) for name in passes},
        "layers": rows,
        "tuned": gains,
    }
    told["all_passes"] = {kernel: step(rows, passes, kernel) for kernel in ("lanes", "codegen")}
    print(json.dumps({**told, "machine": machine()}))


if __name__ == "__main__":
    main()
