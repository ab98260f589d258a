"""What a layer costs, pass by pass: on the dense library, and how many times faster each kernel is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from campfire.kernels.base import Conv
from campfire.packed import Packed

Size = tuple[int, ...]  # [N, C, H, W]


@dataclass(frozen=True)
class Case:
    """A layer as it is to be run: its packed weight, on inputs of one size in one dtype."""

    packed: Packed
    conv: Conv
    size: Size
    dtype: torch.dtype

    @property
    def output(self) -> Size:
        """[N, K, H', W']."""
        return self.conv.output(self.size, self.packed.shape)

    @property
    def device(self) -> torch.device:
        return self.packed.parts["value"].device


@dataclass
class Times:
    """``dense``: milliseconds of the dense library in each pass; ``ratios``: of each pass, how many times faster a kernel is.

    >>> Times({"forward": 3.0}, {"forward": {"blocks": 2.0}}).of("blocks", "forward")
    1.5
    """

    dense: dict[str, float] = field(default_factory=dict)
    ratios: dict[str, dict[str, float]] = field(default_factory=dict)

    def of(self, kernel: str, name: str) -> float:
        """Milliseconds of a kernel in a pass."""
        return self.dense[name] / self.ratios[name][kernel]


Clock = Callable[[Case, Sequence[str], Sequence[str]], Times]  # of a case: these kernels, in these passes
