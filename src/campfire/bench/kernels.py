"""What packed layers gain: three passes of every convolution of a network beside the dense library, in turns."""

import ctypes
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire.bench.grouping import block_mask
from campfire.bench.layers import Layer, layers_of
from campfire.bench.timing import interleaved, machine, ratio
from campfire.errors import UnknownName
from campfire.kernels import Prepared, serving
from campfire.mask import Mask
from campfire.packed import Packed, pack

PASSES = ("forward", "d_input", "d_values")
Run = Callable[[], Any]


def _blocks(rows: int, channels: int, regroup: bool) -> Callable[[Tensor, float], Mask]:
    return lambda weight, sparsity: block_mask(weight, sparsity, rows, channels, regroup)


STRUCTURES: dict[str, tuple[Callable[[Tensor, float], Mask], str]] = {  # the mask, and the layout that holds it
    "hrbp": (_blocks(32, 4, regroup=True), "grouped"),
    "hrbp-32x1": (_blocks(32, 1, regroup=True), "grouped"),
    "block-32x4": (_blocks(32, 4, regroup=False), "unit"),
    "block-32x1": (_blocks(32, 1, regroup=False), "unit"),
    "block-16x4": (_blocks(16, 4, regroup=False), "unit"),
    "block-16x1": (_blocks(16, 1, regroup=False), "unit"),
}


def bench_kernels(
    structures: Sequence[str] = ("hrbp",),
    sparsity: float = 0.7,
    model: str = "resnet50",
    batches: Sequence[int] = (16, 1),
    rounds: int = 7,
    size: int = 224,
    seed: int = 0,
) -> dict[str, Any]:
    """Milliseconds of every layer, pass and structure, and ratios: dense time over sparse time, round by round.

    Dense is the library on the same masked weight in the faster of its two memory formats, chosen layer by layer and pass
    by pass. Sparse includes all that a pass needs from NHWC tensors to NHWC tensors. ``rho`` is the speed of the sparse
    kernel's own arithmetic in units of the dense library's: ratio x density. Freed memory stays with the process, for
    all candidates, so that no candidate is charged for page faults.

    Raises:
        UnknownName: a structure that has no masks here.
    """
    keep_memory()
    for name in structures:
        if name not in STRUCTURES:
            raise UnknownName("structure to time", name, STRUCTURES)
    rows = [
        {"structure": name, "batch": batch, **_time(layer, name, sparsity, batch, rounds, seed)}
        for name in structures
        for batch in batches
        for layer in layers_of(model, size)
    ]
    by_structure = {name: {str(b): _summary(rows, name, b) for b in batches} for name in structures}
    first = by_structure[structures[0]][str(batches[0])]
    return {
        "model": model,
        "sparsity": sparsity,
        "rounds": rounds,
        "dtype": "float32",
        "geomean": first["geomean"],
        "total": first["total"],
        "by_structure": by_structure,
        "layers": rows,
        "machine": machine(),
    }


def keep_memory() -> None:
    """Keep freed memory in the process (glibc; elsewhere nothing happens)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: no block of its own for large tensors, which would be unmapped when they are freed
    mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def _time(layer: Layer, structure: str, sparsity: float, batch: int, rounds: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(layer.shape, generator=generator)
    mask_of, layout = STRUCTURES[structure]
    mask = mask_of(weight, sparsity)
    packed = pack(weight, mask, layout)
    x = torch.randn(batch, layer.shape[1], *layer.size, generator=generator)
    dy = torch.randn(layer.conv.output(tuple(x.shape), layer.shape), generator=generator)
    prepared = serving(packed, layer.conv, x.dtype, x.device).prepare(packed, layer.conv)
    dense = [_dense(weight * mask.keep, x, dy, layer, form) for form in (torch.channels_last, torch.contiguous_format)]
    ours = _sparse(packed, prepared, x, dy)
    found: dict[str, Any] = {"layer": str(layer), "count": layer.count, "density": 1 - mask.sparsity}
    for name in PASSES:
        with torch.no_grad():
            times = interleaved({"nhwc": dense[0][name], "nchw": dense[1][name], "ours": ours[name]}, rounds)
        best = min(("nhwc", "nchw"), key=lambda form: statistics.median(times[form]))
        gain = ratio(times, best, "ours")
        found[name] = {
            "dense_ms": statistics.median(times[best]),
            "sparse_ms": statistics.median(times["ours"]),
            "ratio": gain,
            "rho": gain * found["density"],
            "dense_format": best,
        }
    return found


def _dense(weight: Tensor, x: Tensor, dy: Tensor, layer: Layer, form: torch.memory_format) -> dict[str, Run]:
    weight, x, dy = (t.contiguous(memory_format=form) for t in (weight, x, dy))
    stride, padding = layer.conv.stride, layer.conv.padding

    def backward(*wanted: bool) -> tuple[Tensor, ...]:
        sizes = [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1
        return torch.ops.aten.convolution_backward(dy, x, weight, None, *sizes, list(wanted))

    return {
        "forward": lambda: conv2d(x, weight, stride=stride, padding=padding),
        "d_input": lambda: backward(True, False, False),
        "d_values": lambda: backward(False, True, False),
    }


def _sparse(packed: Packed, prepared: Prepared, x: Tensor, dy: Tensor) -> dict[str, Run]:
    value = packed.parts["value"]
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    return {
        "forward": lambda: prepared.forward(x, value, None),
        "d_input": lambda: prepared.d_input(dy, value, tuple(x.shape)),
        "d_values": lambda: prepared.d_values(dy, x),
    }


def _summary(rows: list[dict[str, Any]], structure: str, batch: int) -> dict[str, dict[str, float]]:
    """Geometric means over the layers' shapes, and ratios of total times with every layer counted."""
    mine = [row for row in rows if row["structure"] == structure and row["batch"] == batch]
    return {
        "geomean": {p: math.exp(statistics.fmean(math.log(row[p]["ratio"]) for row in mine)) for p in PASSES},
        "total": {
            p: sum(r["count"] * r[p]["dense_ms"] for r in mine) / sum(r["count"] * r[p]["sparse_ms"] for r in mine)
            for p in PASSES
        },
    }
