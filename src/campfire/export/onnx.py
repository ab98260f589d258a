"""ONNX: dense with zeros, normalisations folded, any batch size; zeros may be left out of the file."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from campfire.errors import CampfireError
from campfire.export.base import CheckFailed, Format, Subject, difference, is_there, require_pixels
from campfire.extras import need
from campfire.files.writing import write_whole

INDEX = 8  # bytes of an index: int64, by ONNX's definition


class Onnx(Format):
    """Runs anywhere ONNX does. Runtimes compute with the zeros: a smaller file, not a faster network.

    With ``sparse`` a weight is stored as its survivors and their int64 places (``sparse_initializer``), where that is
    smaller: below a third of the weights.
    """

    name, suffixes, options = "onnx", (".onnx",), ("sparse", "pixels")
    summary = "ONNX, dense with zeros, any batch size; --sparse leaves zeros out of the file"

    def write(
        self, subject: Subject, path: Path, sparse: bool = False, pixels: bool = False, **options: Any
    ) -> dict[str, Any]:
        if reasons := require_pixels(subject, pixels):
            raise CampfireError(reasons[0])
        onnx, _ = need("this format", "onnx", "onnx", "onnxscript")
        model, x = subject.dense(pixels), subject.example(pixels)
        proto = traced(model, x)
        _forget(proto)
        _tell(onnx, proto, subject, pixels)
        left_out = _make_sparse(onnx, proto) if sparse else []
        onnx.checker.check_model(proto)
        data = proto.SerializeToString()
        checked = _checked(model, torch.cat([x, x[:1]]), data, fixed_batch(proto))
        write_whole(path, data)
        return {"opset": proto.opset_import[0].version, "sparse_initializers": left_out, **checked}


def traced(model: nn.Module, x: Tensor) -> Any:
    """The model as ONNX's message, with batches of any size.

    Raises:
        CampfireError: it cannot be traced.
    """
    with _quiet():
        try:
            batch = {0: torch.export.Dim("batch")}
            program = torch.onnx.export(
                model,
                (x,),
                dynamo=True,
                dynamic_shapes=(batch,),
                external_data=False,
                verbose=False,
                input_names=["images"],
                output_names=["logits"],
            )
        except Exception as error:  # tracing raises anything at all
            line = str(error).strip().partition("\n")[0]
            raise CampfireError(f"torch.onnx cannot export {type(model).__name__}: {line}") from error
    assert program is not None
    return program.model_proto


def _forget(proto: Any) -> None:
    """What the exporter knows of the source: lines of code, and paths on this machine."""
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]


def _tell(onnx: Any, proto: Any, subject: Subject, pixels: bool) -> None:
    known = {
        "images": "pixels in [0, 1]" if pixels else "normalised: (pixels in [0, 1] - mean) / std",
        "mean": list(subject.mean),
        "std": list(subject.std),
        "classes": list(subject.classes),
        "structure": subject.structure,
    }
    told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items() if value}
    onnx.helper.set_model_props(proto, told)


def _make_sparse(onnx: Any, proto: Any) -> list[str]:
    """Move weights that are smaller as survivors and places out of the dense ones; their names."""
    moved = []
    for tensor in list(proto.graph.initializer):
        weight = onnx.numpy_helper.to_array(tensor)
        places = np.flatnonzero(weight)
        if weight.ndim < 2 or len(places) * (weight.itemsize + INDEX) >= weight.nbytes:
            continue
        values = onnx.numpy_helper.from_array(weight.reshape(-1)[places], tensor.name)
        indices = onnx.numpy_helper.from_array(places.astype(np.int64), f"{tensor.name}_places")
        proto.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, list(weight.shape)))
        proto.graph.initializer.remove(tensor)
        moved.append(tensor.name)
    return moved


def fixed_batch(proto: Any) -> int | None:
    """The number of images that the graph takes, if it is one number: torch falls back to it, and says so in a warning."""
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    return batch.dim_value if batch.HasField("dim_value") else None


def _checked(model: nn.Module, x: Tensor, data: bytes, fixed: int | None) -> dict[str, Any]:
    """What ONNX Runtime makes of images beside the model, in a batch of another size than the one it was traced with.

    Raises:
        CheckFailed: the batch was fixed while tracing, ONNX Runtime cannot load or run the file, or it computes something else.
    """
    if fixed is not None:
        raise CheckFailed(
            f"the exported ONNX model takes batches of {fixed} alone, and should take any: torch fixed the batch while "
            f"tracing {type(model).__name__}; its forward pass must not turn the batch into a number, as len(x), "
            "int(x.shape[0]) and loops over images do; nothing was written"
        )
    if not is_there("onnxruntime"):
        return {"checked_by": None, "max_abs_difference": None}
    return {"checked_by": "onnxruntime", **difference(model, x, lambda x: runtime(data)(x), "the exported ONNX model")}


def runtime(data: bytes) -> Callable[[Tensor], Tensor]:
    """ONNX Runtime on the CPU.

    Raises:
        CampfireError: it is not installed.
    """
    (onnxruntime,) = need("this format", "onnx", "onnxruntime")
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter warns of what torch itself calls, and of libraries that are not needed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
