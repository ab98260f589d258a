"""The values of the survivors, in the row-major order of the weight: as they are, in 8 bits, or as numbers of a codebook."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from campfire.errors import CheckpointError, UsageError
from campfire.files.bits import pack_numbers, unpack_numbers, width_of
from campfire.files.coded import Keep
from campfire.files.container import BITS, NAMES, SIZES, Bits, Stored, to_bits, to_tensor
from campfire.quantise import Codes

FLOATS = ("F64", "F32", "F16", "BF16")
BOOK = 256  # most entries of a codebook
LARGEST_SCALE = np.finfo(np.float32).max / 128


class Survivors(ABC):
    """The values of a weight's n survivors; a subclass is one way to store them, told by the names of its parts."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def dtype(self) -> str:
        """Of the dense weight, by safetensors' name."""

    @abstractmethod
    def parts(self) -> dict[str, Tensor]:
        """What is stored."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def at(self, keep: Keep) -> Bits:
        """The bits of the n values, in the row-major order of a mask [K, C, R, S] of n weights."""

    def dense(self, keep: Keep) -> Bits:
        """The bits of the dense weight, [K, C, R, S]; zeros are +0."""
        dense: Bits = np.zeros(keep.shape, np.dtype(BITS[SIZES[self.dtype]]))
        dense[keep] = self.at(keep)
        return dense


@dataclass(frozen=True, eq=False)
class Floats(Survivors):
    """Every value as it is, bit for bit: float64, float32, float16 or bfloat16."""

    name = "float"
    value: Bits
    kind: str

    @classmethod
    def of(cls, weight: Tensor, keep: Keep) -> "Floats":
        """The survivors of a weight of the mask's shape, or [K, C] of a linear layer."""
        return cls(to_bits(weight).reshape(keep.shape)[keep], NAMES[weight.dtype])

    @property
    def dtype(self) -> str:
        return self.kind

    def __len__(self) -> int:
        return len(self.value)

    def parts(self) -> dict[str, Tensor]:
        return {"value": to_tensor(self.value, self.kind)}

    def at(self, keep: Keep) -> Bits:
        return self.value


@dataclass(frozen=True, eq=False)
class Scaled(Survivors):
    """Whole numbers in [-128, 127], times a scale for each output; the product is rounded once, to float32."""

    name = "int8"
    code: NDArray[np.int8]  # [n]
    scale: NDArray[np.float32]  # [K]

    @property
    def dtype(self) -> str:
        return "F32"

    def __len__(self) -> int:
        return len(self.code)

    def parts(self) -> dict[str, Tensor]:
        return {"value": torch.from_numpy(self.code), "scale": torch.from_numpy(self.scale)}

    def at(self, keep: Keep) -> Bits:
        each = keep.reshape(len(keep), -1).sum(1)
        return (self.code * np.repeat(self.scale, each)).view(np.uint32)


@dataclass(frozen=True, eq=False)
class Shared(Survivors):
    """The number of each value in a book of 256 values at most, in as few bits as tell them apart (1 to 8)."""

    name = "codebook"
    code: NDArray[np.uint8]  # [n], each below the entries of the book
    book: Bits
    kind: str  # of the book, and of the dense weight

    @property
    def dtype(self) -> str:
        return self.kind

    @property
    def width(self) -> int:
        """Bits of a number."""
        return max(1, width_of(len(self.book)))

    def __len__(self) -> int:
        return len(self.code)

    def parts(self) -> dict[str, Tensor]:
        packed = torch.from_numpy(pack_numbers(self.code, self.width))
        return {"value": packed, "codebook": to_tensor(self.book, self.kind)}

    def at(self, keep: Keep) -> Bits:
        return self.book[self.code]


def of_codes(codes: Codes, dtype: torch.dtype = torch.float32) -> Survivors:
    """What `campfire.quantise.encode` returned, of a weight of this dtype.

    A codebook is of the weight's dtype, so that the weight comes back in it; products with a scale are float32 in any file.

    Raises:
        UsageError: an entry of the codebook is no finite number in this dtype.
    """
    if codes.codes.dtype == torch.int8:
        return Scaled(codes.codes.cpu().numpy(), codes.table.float().cpu().numpy())
    table = codes.table.to(dtype) if dtype.is_floating_point else codes.table
    if not (finite := table.isfinite()).all():
        raise UsageError(
            f"a codebook has finite entries; {codes.table[~finite][0].item():g} is none as {NAMES[table.dtype]}, which the "
            "weight is; save the weight in a dtype with a wider range, or give codes that were made of it"
        )
    return Shared(codes.codes.cpu().numpy(), to_bits(table), NAMES[table.dtype])


def most_values(parts: Mapping[str, Stored]) -> int:
    """No more values than this can be in these parts."""
    return 8 * parts["value"].data.nbytes if "codebook" in parts else parts["value"].bits.size


def read_values(parts: Mapping[str, Stored], keep: Keep) -> Survivors:
    """The values of a mask's survivors.

    Raises:
        CheckpointError: they are not as many as the mask has, or of a wrong type, or a scale is none.
    """
    count, value = int(np.count_nonzero(keep)), parts["value"]
    if "codebook" in parts:
        return _codebook(value, parts["codebook"], count)
    if value.shape != (count,):
        raise CheckpointError(f"{count} weights live, and its values are {list(value.shape)}")
    if "scale" in parts:
        return _int8(value, parts["scale"], len(keep))
    if value.dtype not in FLOATS:
        raise CheckpointError(f"values are floating point; got {value.dtype}")
    return Floats(value.bits, value.dtype)


def _int8(value: Stored, scale: Stored, outputs: int) -> Scaled:
    if value.dtype != "I8" or scale.dtype != "F32" or scale.shape != (outputs,):
        raise CheckpointError(f"8-bit values are I8 with {outputs} scales in F32; got {value.dtype}, {scale.dtype}")
    scales = scale.bits.view(np.float32)
    if not ((scales >= 0) & (scales <= LARGEST_SCALE)).all():
        raise CheckpointError("a scale is negative, not a number, or so large that products are infinite")
    return Scaled(value.bits.view(np.int8), scales)


def _codebook(value: Stored, book: Stored, count: int) -> Shared:
    size = book.bits.size
    if value.dtype != "U8" or book.dtype not in FLOATS or len(book.shape) != 1 or not 1 <= size <= BOOK:
        raise CheckpointError(f"a codebook has 1 to {BOOK} floating-point entries; got {book.dtype} {list(book.shape)}")
    entries: NDArray[Any] = to_tensor(book.bits.copy(), book.dtype).double().numpy()
    if not np.isfinite(entries).all():
        raise CheckpointError("an entry of the codebook is infinite, or not a number")
    code = unpack_numbers(value.data, max(1, width_of(size)), count, "value").astype(np.uint8)
    if count and int(code.max()) >= size:
        raise CheckpointError(f"a value is not among the {size} of its codebook")
    return Shared(code, book.bits, book.dtype)
