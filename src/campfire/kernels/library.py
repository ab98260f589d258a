"""The dense library's gradients of a convolution, kept away from where it writes past its memory."""

import torch
from torch import Tensor

from campfire.kernels.base import Conv

_LANES = 16  # channels in a vector of oneDNN's


def convolution_backward(
    dy: Tensor, x: Tensor, weight: Tensor, conv: Conv, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the input [N, C, H, W], the weight [K, C / groups, R, S] and the bias, those that are ``wanted``."""
    stride = conv.stride
    if wanted == [False, True, False] and _overruns(x, weight, conv):
        x, stride = _read(x, dy, stride), 1
    two = [[n, n] for n in (stride, conv.padding, conv.dilation)]
    return torch.ops.aten.convolution_backward(dy, x, weight, None, *two, False, [0, 0], conv.groups, wanted)


def _overruns(x: Tensor, weight: Tensor, conv: Conv) -> bool:
    """Whether the weight gradient is one for which oneDNN reserves too little: a strided 1x1 whose channels fill no
    vector. Its copy of the pixels that are read then ends behind the memory it was given (oneDNN issue 6035)."""
    strided = conv.stride > 1 and conv.padding == 0 and tuple(weight.shape[2:]) == (1, 1)
    return strided and x.device.type == "cpu" and weight.shape[1] < _LANES


def _read(x: Tensor, dy: Tensor, stride: int) -> Tensor:
    """The pixels that a 1x1 convolution reads: one for each of its output's."""
    height, width = dy.shape[2:]
    nhwc = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    taken = x[:, :, ::stride, ::stride][:, :, :height, :width]
    return taken.contiguous(memory_format=torch.channels_last if nhwc else torch.contiguous_format)
