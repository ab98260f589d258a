"""Kernel, the interface: three passes of a convolution from packed values, and reasons where it cannot serve."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from campfire.packed import Packed

KERNELS: dict[str, "Kernel"] = {}


@dataclass(frozen=True)
class Conv:
    """What a convolution does besides its weight; square strides and paddings only (a linear layer: stride 1, padding 0).

    >>> Conv(stride=2, padding=1).output((16, 64, 56, 56), (128, 64, 3, 3))
    (16, 128, 28, 28)
    """

    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    def output(self, x: tuple[int, ...], weight: tuple[int, ...]) -> tuple[int, int, int, int]:
        """The shape [N, K, H', W'] for an input [N, C, H, W] and a weight [K, C, R, S]."""
        height, width = self._side(x[2], weight[2]), self._side(x[3], weight[3])
        return x[0], weight[0], height, width

    def _side(self, size: int, taps: int) -> int:
        return (size + 2 * self.padding - self.dilation * (taps - 1) - 1) // self.stride + 1


class Prepared(ABC):
    """A kernel made ready for one layer: its index structures, built once while the mask is frozen.

    Every pass takes tensors in any memory format and returns the kernel's own.
    """

    @abstractmethod
    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        """[N, C, H, W] -> [N, K, H', W']; then plus ``residual`` of that shape, then ReLU."""

    @abstractmethod
    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        """The gradient of an input of shape ``size`` from that of the output [N, K, H', W']."""

    @abstractmethod
    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        """The gradient of the packed values, in their shape."""

    def hold(self) -> list[Tensor]:
        """Where the next forward pass puts what `d_input` would make again: used there for as long as the list lives."""
        return []


class Kernel(ABC):
    """A way to run a packed layer. A subclass with a ``name`` is registered by being defined."""

    name: ClassVar[str] = ""
    layouts: ClassVar[tuple[str, ...]] = ()  # that it reads
    serves: ClassVar[str] = ""  # dtypes and devices, of a kernel that runs blocks
    least: ClassVar[tuple[int, int] | None] = None  # outputs x inputs side by side that its blocks are multiples of
    format: ClassVar[str] = "nhwc"  # of activations, see campfire.kernels.formats: what it takes without a copy

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            KERNELS[cls.name] = cls()

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        """Reasons why it cannot serve this layer; [] when it can."""
        if packed.layout not in self.layouts:
            return [f"it reads {' and '.join(self.layouts)}, not {packed.layout}"]
        return []

    def work(self, packed: Packed, conv: Conv) -> float:
        """The fraction of the dense layer's arithmetic that it does: what the cost model reckons with."""
        return packed.parts["value"].numel() / math.prod(packed.shape)

    @abstractmethod
    def prepare(self, packed: Packed, conv: Conv) -> Prepared:
        """Index structures for a layer that `why_not` accepts."""
