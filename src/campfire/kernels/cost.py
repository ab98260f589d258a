"""The cost model: what kernels gain by arithmetic and bytes alone, without running anything; the same on every run.

A pass takes flops / speed + bytes / bandwidth, with all of the weights for the dense library and the living ones for a
kernel. A kernel computes at ``rho`` times the library's speed and moves its activations ``moves`` times.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from campfire.kernels.base import KERNELS
from campfire.kernels.choice import PASSES
from campfire.kernels.times import Case, Size, Times
from campfire.native.flavours import has_amx
from campfire.packed.tile import read_tile

SPEED = 278e9  # flop/s of a core: dense float32 on AMD Zen 5 with AVX-512
BANDWIDTH = SPEED / 8  # bytes/s of a core: what fits the dense times of `campfire bench kernels` in BENCHMARKS.md best
CONVERTING = 5e9  # bytes a core reads and writes in a second while it changes a memory format: 6.4 MB in 1.3 ms on two
UNPACKING = 1.4e9  # weights a core puts in their places in a second: 708k into 2.36M in 0.5 ms on two


class Machine(NamedTuple):
    """Dense flop/s, bytes/s, and weights put in their places in a second."""

    speed: float
    bandwidth: float
    unpacking: float


# By NVIDIA's data sheet of the H200; nothing was measured. A weight is unpacked by reading its place and moving it.
TENSOR_CORES = {torch.float32: 494e12, torch.bfloat16: 989e12, torch.float16: 989e12}
GPU_BANDWIDTH = 4.8e12


class Pace(NamedTuple):
    """Of one kernel in one pass: its arithmetic's speed over the library's, and how often activations move."""

    rho: float
    moves: float


Paces = tuple[Pace, Pace, Pace]  # in the order of PASSES

# blocks: least squares over the 32 x 4 table of BENCHMARKS.md, 1x1 layers to 12-16 %, others to 4-10 %. lanes and compact:
# eight layers of ResNet-50, 16 images, 2 threads, 30 % of the weights or of the work left, by `campfire.kernels.stopwatch`.
# codegen: bench/patterns.py, four layers of ResNet-50, 16 images, all kernels and half of them, to 10 %.
# blocks-bf16: least squares over 32 x 4 tiles in `campfire bench kernels --dtype bfloat16`, 16 images, to 4-17 %.
POINTWISE: dict[str, Paces] = {
    "blocks": (Pace(1.1, 1.5), Pace(0.7, 2.0), Pace(0.8, 1.0)),
    "blocks-bf16": (Pace(1.05, 2.25), Pace(0.85, 5.0), Pace(0.7, 1.25)),
    "lanes": (Pace(0.63, 1.2), Pace(0.63, 1.2), Pace(0.63, 1.2)),
    "compact": (Pace(0.9, 4.5), Pace(0.9, 4.0), Pace(0.9, 2.5)),
}
SPATIAL: dict[str, Paces] = {
    "blocks": (Pace(0.85, 0.5), Pace(0.75, 1.5), Pace(0.85, 1.25)),
    "blocks-bf16": (Pace(0.85, 0.75), Pace(0.7, 5.5), Pace(0.95, 1.75)),
    "codegen": (Pace(0.82, 1.0), Pace(0.84, 1.0), Pace(0.7, 1.0)),
    "lanes": (Pace(0.8, 1.0), Pace(0.83, 1.0), Pace(0.7, 1.0)),
    "compact": (Pace(0.8, 6.0), Pace(0.8, 4.5), Pace(0.8, 2.5)),
}
# With AMX dense bfloat16 runs by tiles: 16 x 16 x 32 products in 16 cycles beside two vectors of 32 in one. Counted, not timed.
TILED = 8
UNKNOWN: Paces = (Pace(0.5, 1.0), Pace(0.5, 1.0), Pace(0.5, 1.0))  # of a kernel that nobody measured
# Geometric means beside 32 x 4 tiles: of BENCHMARKS.md, and of `campfire bench kernels --structures block-32x4,hrbp-32x4,hrbp,hrbp++`.
NARROW = (0.81, 0.88, 0.79)  # 16 outputs
THIN = (1.0, 0.95, 1.0)  # one input
ONE_TAP = (1.0, 0.63, 1.0)  # where there are several
ORDERED = (0.88, 0.96, 0.92)


def estimate(case: Case, kernels: Sequence[str], passes: Sequence[str] = PASSES) -> Times:
    """Times by the model.

    >>> from campfire.kernels import Conv
    >>> from campfire.mask import Mask
    >>> from campfire.packed import pack
    >>> keep = (torch.arange(64) % 4 == 0).expand(64, 64).contiguous()[:, :, None, None]
    >>> packed = pack(torch.ones(64, 64, 1, 1), Mask(keep), "unit", tile=(32, 1, 1, 1))
    >>> round(estimate(Case(packed, Conv(), (16, 64, 28, 28), torch.float32), ["blocks"]).ratios["d_values"]["blocks"], 1)
    1.8
    """
    dense, found = _dense(case), Times()
    for name in passes:
        found.dense[name] = 1e3 * dense
        found.ratios[name] = {kernel: dense / _seconds(case, kernel, name) for kernel in kernels}
    return found


def converting(size: Size, dtype: torch.dtype) -> float:
    """Milliseconds to convert activations of a size into another memory format: read and written once."""
    return 1e3 * 2 * math.prod(size) * dtype.itemsize / CONVERTING / torch.get_num_threads()


def _seconds(case: Case, kernel: str, name: str) -> float:
    on = machine(case)
    if kernel == "reference":
        return _dense(case) + case.packed.parts["value"].numel() / on.unpacking
    share = KERNELS[kernel].work(case.packed, case.conv)
    pace = pace_of(case, kernel, name)
    return (
        _arithmetic(case) * share / (pace.rho * on.speed)
        + (pace.moves * _moved(case) + share * _weights(case)) / on.bandwidth
    )


def _dense(case: Case) -> float:
    """Seconds of the dense library in a pass."""
    on = machine(case)
    return _arithmetic(case) / on.speed + (_moved(case) + _weights(case)) / on.bandwidth


def machine(case: Case) -> Machine:
    """All cores that torch uses, or a GPU."""
    if case.device.type == "cuda":
        speed = TENSOR_CORES.get(case.dtype, TENSOR_CORES[torch.float32])
        return Machine(speed, GPU_BANDWIDTH, GPU_BANDWIDTH / (8 + 2 * case.dtype.itemsize))
    threads = torch.get_num_threads()
    return Machine(SPEED * threads, BANDWIDTH * threads, UNPACKING * threads)


def pace_of(case: Case, kernel: str, name: str) -> Pace:
    """What was measured of a kernel on layers like this one."""
    table = POINTWISE if tuple(case.packed.shape[2:]) == (1, 1) else SPATIAL
    place = PASSES.index(name)
    pace = table.get(kernel, UNKNOWN)[place]
    if kernel in ("blocks", "blocks-bf16"):
        outputs, inputs, *taps = read_tile(case.packed.parts["tile"])
        factor = (NARROW[place] if outputs % 32 else 1.0) * (THIN[place] if inputs == 1 else 1.0)
        factor *= ONE_TAP[place] if taps != list(case.packed.shape[2:]) else 1.0
        factor *= ORDERED[place] if case.packed.layout == "grouped" else 1.0
        factor /= TILED if kernel == "blocks-bf16" and has_amx() else 1
        pace = Pace(pace.rho * factor, pace.moves)
    return pace


def _arithmetic(case: Case) -> float:
    """Flops of the dense layer."""
    return 2.0 * math.prod(case.packed.shape[1:]) * math.prod(case.output)


def _moved(case: Case) -> float:
    """Bytes of input and output."""
    return case.dtype.itemsize * float(math.prod(case.size) + math.prod(case.output))


def _weights(case: Case) -> float:
    """Bytes of the dense weight."""
    return case.dtype.itemsize * float(math.prod(case.packed.shape))
