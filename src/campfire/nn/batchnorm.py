"""BatchNorm2d: the library's, which keeps images side by side where they come so."""

from typing import Self

import torch
from torch import Tensor, nn

from campfire.kernels.lanes.native import available
from campfire.kernels.lanes.norm import affine, norm


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation [N, C, H, W] -> the same, in chwn where x is float32 in chwn on a CPU.

    Any other input is the library's own work, bit for bit. The state dict is the library's too.

    >>> from campfire.kernels.formats import is_format, to_format
    >>> layer = BatchNorm2d.of(nn.BatchNorm2d(3))
    >>> is_format(layer(to_format(torch.randn(16, 3, 5, 5), "chwn")), "chwn"), list(layer.state_dict())[:2]
    (True, ['weight', 'bias'])
    """

    @classmethod
    def of(cls, module: nn.BatchNorm2d) -> Self:
        """A layer that shares the parameters, buffers and hooks of a library's."""
        layer = cls.__new__(cls)
        layer.__dict__.update(module.__dict__)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] -> the same."""
        if not self._serves(input):
            return super().forward(input)
        if not self.training and self.running_mean is not None and self.running_var is not None:
            return self._known(input, self.running_mean, self.running_var)
        y, mean, variance = norm(input, self.weight, self.bias, self.eps)
        if self.training and self.track_running_stats:
            self._follow(mean, variance, input.numel() // input.shape[1])
        return y

    def _serves(self, x: Tensor) -> bool:
        several = x.dim() == 4 and x.numel() > x.shape[1]  # of one value per channel the library complains
        own = (self.weight, self.bias, self.running_mean, self.running_var)
        plain = all(t is None or t.dtype == torch.float32 for t in own)  # native code takes them all for that
        return several and plain and x.shape[1] == self.num_features and side_by_side(x)

    def _known(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = (variance + self.eps).rsqrt()
        scale = scale if self.weight is None else scale * self.weight
        shift = -mean * scale
        return affine(x, scale, shift if self.bias is None else shift + self.bias)

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """The running moments, towards those of this batch."""
        with torch.no_grad():
            weight = self.momentum
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                weight = 1 / self.num_batches_tracked.to(mean.dtype) if weight is None else weight
            if self.running_mean is not None and self.running_var is not None:
                weight = 0.0 if weight is None else weight
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
                self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), weight)


def side_by_side(x: Tensor) -> bool:
    """Whether x is float32 in chwn on a CPU, and not in one of the library's formats, as one image may be."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.dim() != 4 or x.is_contiguous():
        return False
    last = x.is_contiguous(memory_format=torch.channels_last)
    return not last and x.permute(1, 2, 3, 0).is_contiguous() and x.numel() > 0 and available()
