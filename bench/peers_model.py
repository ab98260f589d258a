"""Inference of a whole network: dense in other libraries beside campfire's compressed one, in turns; prints one JSON object.

    pip install onnx onnxruntime openvino    # those that are missing are left out, with the reason
    python bench/peers_model.py --model resnet50 --structure tiles --sparsity 0.7 --batch 16

All get the same float32 images and hand back float32 logits; normalisations are folded for all. Ratios are the time of
dense float32 in torch (`campfire.fuse`d, channels_last) over that of the candidate: above 1 is faster.
"""

import argparse
import io
import json
import statistics
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from campfire.bench.kernels import keep_memory
from campfire.bench.nets import Inference, compressed, dense_net, images
from campfire.bench.timing import interleaved, machine, ratio
from campfire.compress import tune_
from campfire.fusion import fuse

Run = Callable[[], object]


def onnx_file(net: nn.Module, x: Tensor) -> bytes:
    """The fused network as ONNX; batch size fixed."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter that needs no further package
        plain = fuse(net).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        torch.onnx.export(plain, (x.contiguous(),), file, dynamo=False)
    return file.getvalue()


def onnx_runtime(model: bytes, x: Tensor) -> Run:
    """ONNX Runtime, float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: x.contiguous().numpy()}
    return lambda: session.run(None, given)


def openvino(model: bytes, x: Tensor, precision: str) -> Run:
    """OpenVINO in the given precision."""
    import openvino

    core = openvino.Core()
    config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    request = core.compile_model(core.read_model(model), "CPU", config).create_infer_request()
    given = openvino.Tensor(x.contiguous().numpy(), shared_memory=True)
    return lambda: request.infer({0: given})


def campfire(dense: nn.Module, structure: str, sparsity: float, x: Tensor, dtype: torch.dtype) -> Run:
    """The compressed network, tuned and fused."""
    net = compressed(dense, structure, sparsity).net
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        tune_(net, x, training=False)
    return Inference(net, x, dtype)


def measure(model: str, structure: str, sparsity: float, batch: int, size: int, rounds: int) -> dict[str, Any]:
    """Milliseconds and ratios by candidate, and why others have none."""
    dense, x = dense_net(model), images(batch, size)
    exported = onnx_file(dense, x) if find_spec("onnx") else b""
    candidates: dict[str, Callable[[], Run]] = {
        "torch fp32": lambda: Inference(dense, x),
        "torch bf16": lambda: Inference(dense, x, torch.bfloat16),
        "onnxruntime fp32": lambda: onnx_runtime(exported, x),
        "openvino fp32": lambda: openvino(exported, x, "f32"),
        "openvino bf16": lambda: openvino(exported, x, "bf16"),
        f"campfire {structure} fp32": lambda: campfire(dense, structure, sparsity, x, torch.float32),
        f"campfire {structure} bf16": lambda: campfire(dense, structure, sparsity, x, torch.bfloat16),
    }
    ready: dict[str, Run] = {}
    left_out: dict[str, str] = {}
    for name, make in candidates.items():
        try:
            ready[name] = make()
        except ImportError as error:
            left_out[name] = f"not installed: {error}"
        except Exception as error:  # a library that fails in whatever way is a candidate without a figure
            left_out[name] = f"{type(error).__name__}: {error}"
    times = interleaved(ready, rounds)
    rows = {n: {"ms": statistics.median(t), "ratio": ratio(times, "torch fp32", n)} for n, t in times.items()}
    return {"candidates": rows, "left_out": left_out}


def main() -> None:
    """Measure, and print."""
    own = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    own.add_argument("--model", default="resnet50")
    own.add_argument("--structure", default="tiles")
    own.add_argument("--sparsity", type=float, default=0.7)
    own.add_argument("--batch", type=int, default=16)
    own.add_argument("--size", type=int, default=224)
    own.add_argument("--rounds", type=int, default=7)
    given = vars(own.parse_args())
    keep_memory()
    print(json.dumps({**given, **measure(**given), "machine": machine()}))


if __name__ == "__main__":
    main()
