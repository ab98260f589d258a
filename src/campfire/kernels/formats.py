"""Memory formats of activations [N, C, H, W]: which axis runs fastest.

``nhwc`` is the library's channels_last. ``chwn`` keeps the images of a batch side by side, so that one vector holds the
same pixel of many images and any single weight can be multiplied with it. Both are strides of ordinary tensors: what works
element by element (ReLU, the sum with a shortcut) keeps them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from campfire.kernels.lanes.native import available, call

FORMATS = ("nhwc", "chwn")


def is_format(x: Tensor, name: str) -> bool:
    """Whether x [N, C, H, W] lies in memory as the format says.

    >>> x = torch.zeros(2, 3, 4, 4)
    >>> is_format(x, "chwn"), is_format(to_format(x, "chwn"), "chwn"), is_format(to_format(x, "chwn").relu(), "chwn")
    (False, True, True)
    """
    if name == "nhwc":
        return x.is_contiguous(memory_format=torch.channels_last)
    return x.permute(1, 2, 3, 0).is_contiguous()


def to_format(x: Tensor, name: str) -> Tensor:
    """The same numbers in a format; x itself where it has it already."""
    if is_format(x, name):
        return x
    if _native(x):
        if name == "chwn":
            return _taken(x)
        if is_format(x, "chwn"):
            return _given(x, name)
    if name == "nhwc":
        return x.contiguous(memory_format=torch.channels_last)
    return empty(x.shape, x, name).copy_(x)


def empty(shape: Sequence[int], like: Tensor, name: str) -> Tensor:
    """Memory for [N, C, H, W] in a format; no view of other memory, so that a ReLU may work in place after autograd."""
    n, c, h, w = shape
    strides = (h * w * c, 1, w * c, c) if name == "nhwc" else (1, h * w * n, w * n, n)
    return like.new_empty_strided((n, c, h, w), strides)


def _native(x: Tensor) -> bool:
    """Whether native code may turn it: real memory, and nothing that autograd would have to see."""
    plain = type(x) is Tensor and x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 4
    seen = x.requires_grad and torch.is_grad_enabled()
    return plain and not seen and x.numel() > 0 and available()


def _taken(x: Tensor) -> Tensor:
    """In chwn, from NCHW or NHWC."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    x = x if last else x.contiguous()
    n, c, h, w = x.shape
    y = empty(x.shape, x, "chwn")
    call("lanes_layers", "take", x, n, c, h * w, int(last), y)
    return y


def _given(x: Tensor, name: str) -> Tensor:
    """From chwn."""
    n, c, h, w = x.shape
    y = empty(x.shape, x, name)
    call("lanes_layers", "give", x, n, c, h * w, int(name == "nhwc"), y)
    return y
