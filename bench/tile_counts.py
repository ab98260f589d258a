"""What tile products (AMX) can gain, counted and not timed: products and loads of the kernel blocks-amx, beside dense ones.

    python bench/tile_counts.py --structure block-32x32 --batch 16

The kernel's own sources run with the tile registers emulated, which counts. A product of full tiles takes the multiplier 16
cycles, however few of its rows are used, and a load takes 8: what takes longer is the time of a pass. Dense is given what no
library has: every product full, loads for nothing. ``arithmetic`` is the ratio of the two. ``memory`` is the same where x, y
and the weights are moved once, at ``--bandwidth`` bytes a cycle of one core, at the same time. Nothing else is in either:
copies, epilogues, caches. So these are what counts allow, and a machine will give less. Prints JSON: geometric means by taps
and pass, and every layer.
"""

import argparse
import ctypes
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from campfire import native
from campfire.bench.candidates import CANDIDATES
from campfire.bench.kernels import PASSES
from campfire.bench.layers import Layer, layers_of
from campfire.kernels.blocks.amx import AmxPasses
from campfire.native.building import Build
from campfire.native.compilers import compiler
from campfire.native.flavours import FLAVOURS, flavour_names
from campfire.native.loading import cache_folder
from campfire.native.store import Store
from campfire.packed import pack

PRODUCT, LOAD = 16, 8  # cycles
FULL = 16 * 16 * 32  # multiplications of a product
LIBRARIES = ("blocks_amx_conv", "blocks_amx_d_values")


def emulated() -> dict[str, ctypes.CDLL]:
    """The kernel's libraries, in the fastest flavour that this CPU runs."""
    kind = FLAVOURS[next(name for name in flavour_names() if name != "amx")]
    kind = replace(kind, name=f"{kind.name}-tiles", flags=(*kind.flags, "-DCAMPFIRE_EMULATE_TILES"))
    return {name: Store(cache_folder()).load(Build(name, kind, compiler())) for name in LIBRARIES}


def counts(libraries: dict[str, ctypes.CDLL]) -> list[int]:
    """Products, their rows, and loads, since the last call."""
    found, sums = (ctypes.c_int64 * 3)(), [0, 0, 0]
    for library in libraries.values():
        library.campfire_tiles_counted(found)
        sums = [a + b for a, b in zip(sums, found, strict=True)]
    return sums


def row(
    layer: Layer, structure: str, batch: int, bandwidth: float, libraries: dict[str, ctypes.CDLL]
) -> dict[str, Any]:
    candidate, weight = CANDIDATES[structure], torch.randn(layer.shape, generator=torch.Generator().manual_seed(0))
    mask = candidate.mask(weight, 0.7)
    packed = pack(weight, mask, candidate.layout)
    x = torch.zeros(batch, layer.shape[1], *layer.size, dtype=torch.bfloat16)
    dy = torch.zeros(layer.conv.output(tuple(x.shape), layer.shape), dtype=torch.bfloat16)
    value, passes = packed.parts["value"].bfloat16(), AmxPasses(packed, layer.conv)
    runs: dict[str, Callable[[], Tensor]] = {
        "forward": lambda: passes.forward(x, value, None),
        "d_input": lambda: passes.d_input(dy, value, tuple(x.shape)),
        "d_values": lambda: passes.d_values(dy, x),
    }
    full = dy.numel() * math.prod(layer.shape[1:]) / FULL
    found: dict[str, Any] = {
        "layer": str(layer),
        "kind": layer.kind,
        "count": layer.count,
        "density": 1 - mask.sparsity,
    }
    for name, run in runs.items():
        counts(libraries)
        run()
        products, rows, loads = counts(libraries)
        cycles, moved = max(PRODUCT * products, LOAD * loads), (x.nbytes + dy.nbytes) / bandwidth
        found[name] = {
            "fill": rows / 16 / products,
            "loads": loads / products,
            "arithmetic": PRODUCT * full / cycles,
            "memory": max(PRODUCT * full, moved + 2 * weight.numel() / bandwidth)
            / max(cycles, moved + value.nbytes / bandwidth),
        }
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(kind: str, name: str, what: str) -> float:
        return round(math.exp(sum(math.log(r[name][what]) for r in rows if r["kind"] == kind) / kinds[kind]), 2)

    kinds = {kind: sum(r["kind"] == kind for r in rows) for kind in sorted({r["kind"] for r in rows})}
    return {
        kind: {name: {x: mean(kind, name, x) for x in ("arithmetic", "memory")} for name in PASSES} for kind in kinds
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--structure", default="block-32x32", choices=["block-32x32", "block-16x32", "hrbp-32x32"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--bandwidth", type=float, default=10.0, help="bytes a cycle of one core")
    options = parser.parse_args()
    torch.set_num_threads(1)
    libraries, real, rows = emulated(), native.library, []
    with mock.patch.object(native, "library", lambda name: libraries.get(name) or real(name)):
        for layer in layers_of():
            if CANDIDATES[options.structure].fits(layer.shape):
                rows.append(row(layer, options.structure, options.batch, options.bandwidth, libraries))
    print(json.dumps({**vars(options), "geomean": summary(rows), "layers": rows}, indent=1))


if __name__ == "__main__":
    main()
