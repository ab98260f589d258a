"""MaxPool2d: the library's, which keeps images side by side where they come so."""

from typing import Any, Self

from torch import Tensor, nn

from campfire.kernels.lanes.pool import MOST, max_pool
from campfire.nn.batchnorm import side_by_side


class MaxPool2d(nn.MaxPool2d):
    """The greatest under square windows [N, C, H, W] -> [N, C, H', W'], in chwn where x is float32 in chwn on a CPU.

    Any other input or window is the library's own work, bit for bit.

    >>> import torch
    >>> from campfire.kernels.formats import is_format, to_format
    >>> is_format(MaxPool2d(3, 2, 1)(to_format(torch.randn(16, 3, 8, 8), "chwn")), "chwn")
    True
    """

    @classmethod
    def of(cls, module: nn.MaxPool2d) -> Self:
        """A layer that shares the attributes and hooks of a library's."""
        layer = cls.__new__(cls)
        layer.__dict__.update(module.__dict__)
        return layer

    def forward(self, input: Tensor) -> Any:
        """[N, C, H, W] -> [N, C, H', W']."""
        window = [_side(n) for n in (self.kernel_size, self.stride, self.padding)]
        size, stride, padding = window
        if size is None or stride is None or padding is None or not self._serves(input, size, stride, padding):
            return super().forward(input)
        return max_pool(input, size, stride, padding)

    def _serves(self, x: Tensor, size: int, stride: int, padding: int) -> bool:
        more = self.ceil_mode and any(
            (n + 2 * padding - size) % stride for n in x.shape[2:]
        )  # windows that reach beyond
        plain = not self.return_indices and not more and _side(self.dilation) == 1
        known = plain and size <= MOST and padding <= size // 2 and side_by_side(x)
        return known and min(x.shape[2:]) + 2 * padding >= size


def _side(pair: int | tuple[int, ...]) -> int | None:
    """The number that both are."""
    if isinstance(pair, int):
        return pair
    return pair[0] if len(set(pair)) == 1 else None
