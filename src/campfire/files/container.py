"""The safetensors container, read strictly: a header that says where each tensor lies, and their bytes one after another.

A file that this reads, every safetensors library reads; files that some would read one way and some another (a name twice,
gaps) are refused.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from campfire.errors import CheckpointError

TORCH = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in TORCH.items()}
SIZES = {name: dtype.itemsize for name, dtype in TORCH.items()}
BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}  # of numbers that are moved, not computed with
HEADER = 2**24  # most bytes of a header
Bits = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its dtype by safetensors' name, and its bits."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    @property
    def bits(self) -> Bits:
        """The numbers as unsigned ones of their size, [...]."""
        return self.data.view(BITS[SIZES[self.dtype]]).reshape(self.shape)

    def tensor(self) -> Tensor:
        """A tensor of its own."""
        return to_tensor(self.bits.copy(), self.dtype)


def to_bits(tensor: Tensor) -> Bits:
    """The bits of a tensor, for numpy knows no bfloat16."""
    tensor = tensor.detach().cpu().contiguous()
    signed = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.view(signed).numpy().view(BITS[tensor.element_size()])


def to_tensor(bits: Bits, dtype: str) -> Tensor:
    """The inverse of `to_bits`; the tensor uses the memory of the bits."""
    return torch.from_numpy(bits).view(TORCH[dtype])


def write(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file."""
    return safetensors.torch.save(tensors, metadata)


def parse(data: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors of a safetensors file, as views of ``data``, and its metadata.

    Raises:
        CheckpointError: it is none.
    """
    if (size := int.from_bytes(data[:8], "little")) > min(HEADER, len(data) - 8):
        raise CheckpointError("it is truncated, or no safetensors file: its header would be longer than it")
    header = read_json(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("its metadata are not pairs of strings")
    body = np.frombuffer(data, np.uint8, offset=8 + size)
    tensors = {name: _stored(name, entry, body) for name, entry in header.items()}
    _require_gapless([header[name]["data_offsets"] for name in tensors], len(body))
    return tensors, metadata


def read_json(text: bytes) -> dict[str, Any]:
    """A JSON object, of which no name is given twice.

    Raises:
        CheckpointError: it is something else, or so full of brackets that reading it would take much memory.
    """
    if text.count(b"{") + text.count(b"[") > len(text) // 12 + 16:
        raise CheckpointError("its header holds more brackets than tensors need")
    try:
        found = json.loads(text.decode(), object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its header is no JSON ({error})") from None
    if not isinstance(found, dict):
        raise CheckpointError("its header is no JSON object")
    return found


def whole_numbers(value: Any, most: int = 2**63) -> bool:
    """Whether a value out of JSON is a list of whole numbers in [0, most).

    >>> whole_numbers([1, 2]), whole_numbers([True]), whole_numbers([-1]), whole_numbers("1")
    (True, False, False, False)
    """
    return isinstance(value, list) and all(type(n) is int and 0 <= n < most for n in value)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _stored(name: str, entry: Any, body: NDArray[np.uint8]) -> Stored:
    if not name.isprintable():
        raise CheckpointError(f"{name!r} is no name of a tensor")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"tensor {name!r} is not told by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise CheckpointError(f"tensor {name!r} is of a type that is not served: {dtype!r}")
    if (
        not whole_numbers(shape)
        or len(shape) > 16
        or math.prod(n or 1 for n in shape) >= 2**62
        or not whole_numbers(offsets)
        or len(offsets) != 2
    ):
        raise CheckpointError(f"tensor {name!r} has a shape or offsets that are no whole numbers")
    first, last = offsets
    if not first <= last <= len(body) or last - first != math.prod(shape) * SIZES[dtype]:
        raise CheckpointError(f"tensor {name!r} does not lie within the file, or is of another size than its shape")
    if dtype == "BOOL" and (body[first:last] > 1).any():
        raise CheckpointError(f"tensor {name!r} holds truth values other than 0 and 1")
    return Stored(dtype, tuple(shape), body[first:last])


def _require_gapless(offsets: list[list[int]], size: int) -> None:
    end = 0
    for first, last in sorted(offsets):
        if first != end:
            raise CheckpointError("its tensors overlap, or bytes between them belong to none")
        end = last
    if end != size:
        raise CheckpointError("bytes at its end belong to no tensor")
