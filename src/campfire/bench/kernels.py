"""What packed layers gain: three passes of every convolution of a network beside the dense library, in turns."""

import ctypes
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire.bench.candidates import CANDIDATES
from campfire.bench.cuda import copies, device_of, turns, uncaptured
from campfire.bench.layers import Layer, layers_of
from campfire.bench.timing import machine, ratio
from campfire.errors import UnknownName, UsageError
from campfire.kernels import Prepared, serving
from campfire.kernels.formats import to_format
from campfire.mask import Mask
from campfire.packed import Packed, pack

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
PASSES = ("forward", "d_input", "d_values")
Run = Callable[[], Any]


def bench_kernels(
    structures: Sequence[str] = ("hrbp",),
    sparsity: float = 0.7,
    model: str = "resnet50",
    batches: Sequence[int] = (16, 1),
    rounds: int = 7,
    size: int = 224,
    seed: int = 0,
    dtype: str = "float32",
    device: str = "cpu",
    layers: Callable[[Layer], bool] = lambda layer: True,
) -> dict[str, Any]:
    """Milliseconds of every layer, pass and structure, and ratios: dense time over sparse time, round by round.

    ``dtype``, float32, bfloat16 or float16, is that of all tensors on both sides. Dense is the library on the same
    masked weight in the faster of its two memory formats, chosen layer by layer and pass by pass. Sparse is all that
    a pass does from tensors to tensors in the kernel's own format, in which its neighbours stay. Where that is not
    NHWC, ``convert_ms`` is what it takes to bring the pass's inputs from NHWC and its result to NHWC, and
    ``ratio_converted`` charges the kernel with both. ``rho`` is the speed of the sparse kernel's own arithmetic in
    units of the dense library's: ratio x density. ``flops`` are those of a sparse pass, borders included, ``bytes``
    the least that it must read and write. Freed memory stays with the process, for all candidates, so that no
    candidate is charged for page faults. ``by_kind`` tells 1x1 layers from others; structures that thin the taps are
    timed where there are several.

    ``device="cuda"``: passes are captured as CUDA graphs and timed by events, on inputs that take turns until the second
    cache has forgotten each; the library searches for its best algorithm (cuDNN's benchmark mode), and float32 is TF32
    on both sides. ``layers`` says which are timed.

    Raises:
        UnknownName: a structure that has no masks here, or another dtype.
        UsageError: no GPU is there; or no layer is left.
    """
    keep_memory()
    where = device_of(device)
    if dtype not in DTYPES:
        raise UnknownName("dtype to time", dtype, DTYPES)
    for name in structures:
        if name not in CANDIDATES:
            raise UnknownName("structure to time", name, CANDIDATES)
    rows = [
        {"structure": name, "batch": batch, **_time(layer, name, sparsity, batch, rounds, seed, DTYPES[dtype], where)}
        for name in structures
        for batch in batches
        for layer in layers_of(model, size)
        if CANDIDATES[name].fits(layer.shape) and layers(layer)
    ]
    if missing := set(structures) - {row["structure"] for row in rows}:
        raise UsageError(f"no layer of {model} is left for {', '.join(sorted(missing))}: its units fit in none")
    by_structure = {name: {str(b): _summary(rows, name, b) for b in batches} for name in structures}
    first = by_structure[structures[0]][str(batches[0])]
    return {
        "model": model,
        "sparsity": sparsity,
        "rounds": rounds,
        "dtype": dtype,
        "geomean": first["geomean"],
        "total": first["total"],
        "by_structure": by_structure,
        "layers": rows,
        **({"uncaptured": list(uncaptured)} if where.type == "cuda" else {}),
        "machine": machine(where),
    }


def keep_memory() -> None:
    """Keep freed memory in the process (glibc; elsewhere nothing happens)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(-4, 0)  # M_MMAP_MAX: no block of its own for large tensors, which would be unmapped when they are freed
    mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def _time(
    layer: Layer,
    structure: str,
    sparsity: float,
    batch: int,
    rounds: int,
    seed: int,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(layer.shape, generator=generator)
    candidate = CANDIDATES[structure]
    mask = candidate.mask(weight, sparsity)
    mask = Mask(mask.keep.to(device), {name: part.to(device) for name, part in mask.plan.items()})
    weight = weight.to(device, dtype)
    packed = pack(weight, mask, candidate.layout)
    generator = generator if device.type == "cpu" else torch.Generator(device).manual_seed(seed)
    x = torch.randn(batch, layer.shape[1], *layer.size, generator=generator, device=device).to(dtype)
    y = layer.conv.output(tuple(x.shape), layer.shape)
    dy = torch.randn(y, generator=generator, device=device).to(dtype)
    kernel = serving(packed, layer.conv, x.dtype, x.device)
    prepared = kernel.prepare(packed, layer.conv)
    runs = [
        _runs(weight * mask.keep, packed, prepared, *pair, layer, kernel.format)
        for pair in [(x, dy)] + [(x.clone(), dy.clone()) for _ in range(copies(x.nbytes + dy.nbytes, device) - 1)]
    ]
    found: dict[str, Any] = {
        "layer": str(layer),
        "kind": layer.kind,
        "count": layer.count,
        "density": 1 - mask.sparsity,
        "flops": 2 * int(mask.keep.count_nonzero()) * y[0] * y[2] * y[3],
        "bytes": x.nbytes + dy.nbytes + packed.parts["value"].nbytes,
        "kernel": kernel.name,
        "format": kernel.format,
    }
    for name in PASSES:
        candidates = {which: [run[name][which] for run in runs] for which in runs[0][name]}
        with torch.no_grad():
            found[name] = _figures(turns(candidates, rounds, device), found["density"])
    return found


def _runs(
    weight: Tensor, packed: Packed, prepared: Prepared, x: Tensor, dy: Tensor, layer: Layer, form: str
) -> dict[str, dict[str, Run]]:
    """By pass, what is compared: dense in two formats, ours, and the conversions ours would need."""
    nhwc, nchw = (_dense(weight, x, dy, layer, form) for form in (torch.channels_last, torch.contiguous_format))
    ours = _sparse(packed, prepared, x, dy, form)
    convert = {} if form == "nhwc" else _conversions(x, dy, form)
    return {p: {"nhwc": nhwc[p], "nchw": nchw[p], "ours": ours[p], **convert.get(p, {})} for p in PASSES}


def _figures(times: dict[str, list[float]], density: float) -> dict[str, Any]:
    """Of one pass: medians of milliseconds, and ratios of the same rounds."""
    best = min(("nhwc", "nchw"), key=lambda form: statistics.median(times[form]))
    gain = ratio(times, best, "ours")
    found = {
        "dense_ms": statistics.median(times[best]),
        "sparse_ms": statistics.median(times["ours"]),
        "ratio": gain,
        "rho": gain * density,
        "dense_format": best,
    }
    if "in" not in times:
        return found
    converted = [sum(both) for both in zip(times["ours"], times["in"], times["out"], strict=True)]
    return {
        **found,
        "convert_ms": {side: statistics.median(times[side]) for side in ("in", "out")},
        "ratio_converted": ratio({"dense": times[best], "all": converted}, "dense", "all"),
    }


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


def _sparse(packed: Packed, prepared: Prepared, x: Tensor, dy: Tensor, form: str) -> dict[str, Run]:
    value = packed.parts["value"]
    x, dy = to_format(x, form), to_format(dy, form)
    return {
        "forward": lambda: prepared.forward(x, value, None),
        "d_input": lambda: prepared.d_input(dy, value, tuple(x.shape)),
        "d_values": lambda: prepared.d_values(dy, x),
    }


def _conversions(x: Tensor, dy: Tensor, form: str) -> dict[str, dict[str, Run]]:
    """Of every pass: its inputs from NHWC into a format, and its result from the format to NHWC."""
    last = to_format(x, "nhwc"), to_format(dy, "nhwc")
    own = to_format(x, form), to_format(dy, form)

    def take(*which: int) -> Run:
        return lambda: [to_format(last[i], form) for i in which]

    def give(*which: int) -> Run:
        return lambda: [to_format(own[i], "nhwc") for i in which]

    return {
        "forward": {"in": take(0), "out": give(1)},
        "d_input": {"in": take(1), "out": give(0)},
        "d_values": {"in": take(0, 1), "out": give()},
    }


def _summary(rows: list[dict[str, Any]], structure: str, batch: int) -> dict[str, Any]:
    """Geometric means and ratios of total times, over all layers and over those of each kind; the mean density."""
    mine = [row for row in rows if row["structure"] == structure and row["batch"] == batch]
    kinds = {row["kind"] for row in mine}
    by_kind = {kind: _means([row for row in mine if row["kind"] == kind]) for kind in sorted(kinds, reverse=True)}
    return {**_means(mine), "by_kind": by_kind}


def _means(mine: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means over the layers' shapes, ratios of total times with every layer counted, and the mean density."""
    converted = [row for row in mine if "ratio_converted" in row["forward"]]
    means = {"geomean": _geomean(mine, "ratio")}
    if converted and len(converted) == len(mine):
        means["geomean_converted"] = _geomean(mine, "ratio_converted")
    return {
        **means,
        "density": statistics.fmean(row["density"] for row in mine),
        "total": {
            p: sum(r["count"] * r[p]["dense_ms"] for r in mine) / sum(r["count"] * r[p]["sparse_ms"] for r in mine)
            for p in PASSES
        },
    }


def _geomean(rows: list[dict[str, Any]], of: str) -> dict[str, float]:
    return {p: math.exp(statistics.fmean(math.log(row[p][of]) for row in rows)) for p in PASSES}
