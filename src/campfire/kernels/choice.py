"""Choice: which kernel runs each pass of a layer, and in which memory format its activations lie."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from campfire.errors import CheckpointError, UnknownName
from campfire.kernels.base import KERNELS, Conv
from campfire.kernels.formats import FORMATS
from campfire.packed import Packed

PASSES = ("forward", "d_input", "d_values")


@dataclass(frozen=True)
class Choice:
    """Names in `campfire.kernels.KERNELS`, pass by pass; ``reference`` is the dense library on the unpacked weight.

    A kernel whose own format is another than the layer's is handed, and gives, converted tensors.

    >>> print(Choice(forward="blocks", d_values="blocks"), Choice.of("blocks"), sep=" | ")
    blocks/reference/blocks | blocks
    """

    forward: str = "reference"
    d_input: str = "reference"
    d_values: str = "reference"
    format: str = "nhwc"

    @classmethod
    def of(cls, kernel: str) -> "Choice":
        """One kernel in all passes, in its own format."""
        return cls(kernel, kernel, kernel, KERNELS[kernel].format)

    @property
    def kernels(self) -> tuple[str, str, str]:
        """In the order of `PASSES`."""
        return self.forward, self.d_input, self.d_values

    @property
    def dense(self) -> bool:
        """Whether the dense library runs all three passes."""
        return self == Choice()

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        """Reasons why it cannot serve this layer; [] when it can.

        Raises:
            UnknownName: no such kernel or format.
        """
        for kernel in self.kernels:
            if kernel not in KERNELS:
                raise UnknownName("kernel", kernel, KERNELS)
        if self.format not in FORMATS:
            raise UnknownName("memory format", self.format, FORMATS)
        found = {kernel: KERNELS[kernel].why_not(packed, conv, dtype, device) for kernel in self.kernels}
        return [f"{kernel}: {reason}" for kernel, reasons in found.items() for reason in reasons]

    def to_dict(self) -> dict[str, str]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Choice":
        """What `to_dict` gave.

        Raises:
            CheckpointError: it is something else.
        """
        wanted = set(asdict(cls()))
        if (
            not isinstance(saved, Mapping)
            or set(saved) != wanted
            or not all(isinstance(v, str) for v in saved.values())
        ):
            raise CheckpointError(f"a choice of kernels names {', '.join(sorted(wanted))}; got {saved!r}")
        return cls(**saved)

    def __str__(self) -> str:
        names = self.forward if len(set(self.kernels)) == 1 else "/".join(self.kernels)
        return names if self.format == "nhwc" else f"{names} in {self.format}"
