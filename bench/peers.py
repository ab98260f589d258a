"""What one would use instead, on the same layers: other libraries beside campfire, in turns; prints one JSON object.

    pip install onnx onnxruntime openvino sparseprop    # those that are missing are left out, with the reason
    python bench/peers.py --sparsity 0.7 --batch 16 --layers 8

Forward passes, and where a candidate has one the whole way back (gradients of input and weights). Candidates get tensors in
the layout they like best, made before the clock starts; ONNX Runtime, OpenVINO and SparseProp get NCHW, their own format.
Ratios are the time of dense float32 (the library's faster memory format) over that of the candidate: above 1 is faster.
"""

import argparse
import importlib
import json
import math
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from campfire.bench.kernels import keep_memory
from campfire.bench.layers import Layer, layers_of
from campfire.bench.timing import interleaved, machine, ratio
from campfire.kernels import serving
from campfire.mask import Mask
from campfire.packed import pack
from campfire.structures import named

Passes = dict[str, Callable[[], object]]  # "forward", "backward"


class CannotServe(Exception):
    """Why a candidate has no figure for a layer."""


def torch_dense(
    layer: Layer, weight: Tensor, x: Tensor, dy: Tensor, dtype: torch.dtype, form: torch.memory_format
) -> Passes:
    """The library's own convolution."""
    weight, x, dy = (t.to(dtype).contiguous(memory_format=form) for t in (weight, x, dy))
    stride, padding = layer.conv.stride, layer.conv.padding
    sizes = [stride, stride], [padding, padding], [1, 1], False, [0, 0], 1, [True, True, False]
    return {
        "forward": lambda: torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding),
        "backward": lambda: torch.ops.aten.convolution_backward(dy, x, weight, None, *sizes),
    }


def torch_sparse(layer: Layer, weight: Tensor, x: Tensor, block: tuple[int, int] | None) -> Passes:
    """torch's CSR or BSR matrix times the pixels; the matrix of pixels is at hand."""
    if not layer.pointwise or layer.conv.stride != 1:
        raise CannotServe("a matrix product serves 1x1 layers of stride 1")
    matrix = weight.flatten(1)
    sparse = matrix.to_sparse_bsr(block) if block else matrix.to_sparse_csr()
    pixels = x.permute(1, 0, 2, 3).reshape(x.shape[1], -1).contiguous()
    return {"forward": lambda: sparse @ pixels}


def onnx_runtime(layer: Layer, weight: Tensor, x: Tensor) -> Passes:
    """ONNX Runtime's dense convolution."""
    runtime = _library("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(_onnx(layer, weight, x), options, providers=["CPUExecutionProvider"])
    given = {"x": x.numpy()}
    return {"forward": lambda: session.run(None, given)}


def openvino(layer: Layer, weight: Tensor, x: Tensor, precision: str) -> Passes:
    """OpenVINO's dense convolution."""
    vino = _library("openvino")
    core = vino.Core()
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = core.compile_model(core.read_model(_onnx(layer, weight, x)), "CPU", config)
    request, given = compiled.create_infer_request(), vino.Tensor(x.numpy(), shared_memory=True)
    return {"forward": lambda: request.infer({0: given})}


def sparseprop(layer: Layer, weight: Tensor, x: Tensor, dy: Tensor, over_images: bool) -> Passes:
    """SparseProp's convolution with single scattered weights."""
    modules = _library("sparseprop.modules")
    sparse = modules.SparseConv2d(weight, None, layer.conv.padding, layer.conv.stride, over_images)
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        y = sparse(x)

    def backward() -> object:
        return torch.autograd.grad(y, (x, sparse.W_val), dy, retain_graph=True)

    return {"forward": lambda: sparse(x), "backward": backward}


def campfire(layer: Layer, weight: Tensor, mask: Mask, x: Tensor, dy: Tensor, layout: str) -> Passes:
    """The kernel that serves the mask, from tensors in its memory format."""
    from campfire.kernels.formats import to_format

    packed = pack(weight, mask, layout)
    kernel = serving(packed, layer.conv, x.dtype, x.device)
    prepared, value = kernel.prepare(packed, layer.conv), packed.parts["value"]
    x, dy = to_format(x, kernel.format), to_format(dy, kernel.format)
    return {
        "forward": lambda: prepared.forward(x, value, None),
        "backward": lambda: (prepared.d_input(dy, value, tuple(x.shape)), prepared.d_values(dy, x)),
    }


def candidates(layer: Layer, sparsity: float, batch: int) -> dict[str, Callable[[], Passes]]:
    """By name; all dense and scattered ones compute with the same CK mask, those of blocks with tiles."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(layer.shape, generator=generator)
    x = torch.randn(batch, layer.shape[1], *layer.size, generator=generator)
    dy = torch.randn(layer.conv.output(tuple(x.shape), layer.shape), generator=generator)
    ck, tiles = (_mask(name, weight, sparsity) for name in ("ck", "tiles"))
    scattered, blocks = weight * ck.keep, weight * tiles.keep
    nhwc, nchw = torch.channels_last, torch.contiguous_format
    return {
        "torch fp32 nhwc": lambda: torch_dense(layer, scattered, x, dy, torch.float32, nhwc),
        "torch fp32 nchw": lambda: torch_dense(layer, scattered, x, dy, torch.float32, nchw),
        "torch bf16": lambda: torch_dense(layer, scattered, x, dy, torch.bfloat16, nhwc),
        "torch csr": lambda: torch_sparse(layer, scattered, x, None),
        "torch bsr 4x4": lambda: torch_sparse(layer, blocks, x, (4, 4)),
        "onnxruntime": lambda: onnx_runtime(layer, scattered, x),
        "openvino fp32": lambda: openvino(layer, scattered, x, "f32"),
        "openvino bf16": lambda: openvino(layer, scattered, x, "bf16"),
        "sparseprop": lambda: sparseprop(layer, scattered, x, dy, over_images=False),
        "sparseprop over images": lambda: sparseprop(layer, scattered, x, dy, over_images=True),
        "campfire ck": lambda: campfire(layer, weight, ck, x, dy, "csr"),
        "campfire tiles": lambda: campfire(layer, weight, tiles, x, dy, "unit"),
    }


def measure(layer: Layer, sparsity: float, batch: int, rounds: int) -> dict[str, Any]:
    """Milliseconds and ratios of one layer."""
    ready: dict[str, Passes] = {}
    left_out: dict[str, str] = {}
    for name, make in candidates(layer, sparsity, batch).items():
        try:
            ready[name] = make()
            for run in ready[name].values():
                run()
        except Exception as error:  # a library that fails in whatever way is a candidate without a figure
            ready.pop(name, None)
            left_out[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
    found: dict[str, Any] = {"layer": str(layer), "left_out": left_out}
    for what in ("forward", "backward"):
        times = interleaved({n: p[what] for n, p in ready.items() if what in p}, rounds)
        best = min(("torch fp32 nhwc", "torch fp32 nchw"), key=lambda n: statistics.median(times[n]))
        found[what] = {n: {"ms": statistics.median(t), "ratio": ratio(times, best, n)} for n, t in times.items()}
    return found


def _mask(structure: str, weight: Tensor, sparsity: float) -> Mask:
    rule, score, alive = named(structure), weight.abs(), torch.ones_like(weight, dtype=torch.bool)
    plan = rule.plan(score, sparsity)
    return Mask(rule.project(score, rule.count(tuple(weight.shape), sparsity), plan, alive), plan)


def _onnx(layer: Layer, weight: Tensor, x: Tensor) -> bytes:
    onnx = _library("onnx")
    h, n = onnx.helper, onnx.numpy_helper
    side, stride = layer.conv.padding, layer.conv.stride
    node = h.make_node("Conv", ["x", "w"], ["y"], pads=[side] * 4, strides=[stride] * 2)
    info = [
        h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in (("x", x.shape), ("y", None))
    ]
    graph = h.make_graph([node], "conv", info[:1], info[1:], [n.from_array(weight.numpy(), "w")])
    opset = [h.make_opsetid("", 17)]
    return h.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise CannotServe(f"not installed: {error}") from None


def main() -> None:
    """Measure, and print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--sparsity", type=float, default=0.7)
    own.add_argument("--batch", type=int, default=16)
    own.add_argument("--rounds", type=int, default=5)
    own.add_argument("--layers", type=int, help="only the first so many of the 22 shapes")
    own.add_argument("--size", type=int, default=224, help="of the images")
    given = own.parse_args()
    keep_memory()
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    with torch.no_grad():
        rows = [
            measure(x, given.sparsity, given.batch, given.rounds) for x in layers_of(size=given.size)[: given.layers]
        ]
    geomean: dict[str, dict[str, float]] = {}
    for what in ("forward", "backward"):
        names = {name for row in rows for name in row[what]}
        logs = {n: [math.log(r[what][n]["ratio"]) for r in rows if n in r[what]] for n in sorted(names)}
        geomean[what] = {n: math.exp(statistics.fmean(values)) for n, values in logs.items()}
    print(json.dumps({**vars(given), "geomean": geomean, "layers": rows, "machine": machine()}))


if __name__ == "__main__":
    main()
