"""The layers between convolutions in the batch-lane layout [images / 16, channels, height, width, 16].

Lanes beyond the images are zero in what goes in and in what comes out.
"""

import ctypes
from typing import Any, NamedTuple

import torch
from torch import Tensor

from campfire import native

LANES = 16


def pack(x: Tensor) -> Tensor:
    """Batch-lane [B, C, H, W, 16] of x [N, C, H, W], NCHW or channels_last; lanes beyond N are zero.

    >>> x = torch.arange(6.0).view(3, 2, 1, 1)
    >>> pack(x).shape, pack(x)[0, 1, 0, 0, :4].tolist(), torch.equal(unpack(pack(x), 3), x)
    (torch.Size([1, 2, 1, 1, 16]), [1.0, 3.0, 5.0, 0.0], True)
    """
    x = _plain(x)
    images, channels, height, width = x.shape
    lanes = torch.empty(-(-images // LANES), channels, height, width, LANES)
    _convert("pack", x, x, lanes)
    return lanes


def unpack(lanes: Tensor, images: int, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """The first ``images`` lanes as [N, C, H, W]."""
    _, channels, height, width, _ = lanes.shape
    x = torch.empty(images, channels, height, width).to(memory_format=memory_format)
    _convert("unpack", x, lanes, x)
    return x


def _plain(x: Tensor) -> Tensor:
    one_image = x[0].permute(1, 2, 0)
    return x if one_image.is_contiguous() or x[0].is_contiguous() else x.contiguous()


def _convert(name: str, plain: Tensor, source: Tensor, target: Tensor) -> None:
    images, channels, height, width = plain.shape
    pixel, channel = (1, height * width) if plain[0].is_contiguous() else (channels, 1)
    strides = (ctypes.c_int64(s) for s in (plain.stride(0), channel, pixel))
    _call(name, source, *_sizes(images, channels, height * width), *strides, target)


class Norm(NamedTuple):
    """Result of `norm`: y as x, and the moments [C] of the batch (the variance divided by its count)."""

    y: Tensor
    mean: Tensor
    variance: Tensor


def norm(
    x: Tensor,
    images: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Norm:
    """Batch normalisation by the moments of this batch, plus a residual, then ReLU."""
    y, mean, variance = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    sizes = _sizes(images, x.shape[1], x.shape[2] * x.shape[3])
    _call("norm", x, *sizes, weight, bias, ctypes.c_float(eps), residual, ctypes.c_int32(relu), y, mean, variance)
    return Norm(y, mean, variance)


def affine(
    x: Tensor, images: int, scale: Tensor, shift: Tensor, residual: Tensor | None = None, relu: bool = False
) -> Tensor:
    """x scale [C] + shift [C], plus a residual, then ReLU: batch normalisation by moments that are known."""
    y = torch.empty_like(x)
    sizes = _sizes(images, x.shape[1], x.shape[2] * x.shape[3])
    _call("affine", x, *sizes, scale, shift, residual, ctypes.c_int32(relu), y)
    return y


class NormGradient(NamedTuple):
    """Gradients of `norm`; that of the residual is None where there was none."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    residual: Tensor | None


def norm_back(
    d_y: Tensor,
    x: Tensor,
    images: int,
    mean: Tensor,
    variance: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    y: Tensor | None = None,
    relu: bool = False,
) -> NormGradient:
    """The way back through `norm`; give its result ``y`` where a residual was added."""
    d_x, d_weight, d_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    d_residual = torch.empty_like(x) if y is not None else None
    sizes = _sizes(images, x.shape[1], x.shape[2] * x.shape[3])
    inverse = (variance + eps).rsqrt()
    moments = (mean, inverse, weight, bias, ctypes.c_int32(relu))
    _call("norm_back", x, y, d_y, *sizes, *moments, d_x, d_residual, d_weight, d_bias)
    return NormGradient(d_x, d_weight, d_bias, d_residual)


class _Window(ctypes.Structure):
    """``struct Window`` of lanes_pool.h."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in ("planes", "height", "width", "out_height", "out_width", "size", "stride", "padding")
    ]


def _window(shape: torch.Size, size: int, stride: int, padding: int) -> _Window:
    batches, channels, height, width, _ = shape
    high, wide = ((n + 2 * padding - size) // stride + 1 for n in (height, width))
    return _Window(batches * channels, height, width, high, wide, size, stride, padding)


def max_pool(x: Tensor, size: int = 3, stride: int = 2, padding: int = 1) -> tuple[Tensor, Tensor]:
    """Maxima under size x size windows, and which tap won, uint8 as the maxima; size <= 15, padding <= size / 2."""
    window = _window(x.shape, size, stride, padding)
    y = torch.empty(*x.shape[:2], window.out_height, window.out_width, LANES)
    taps = torch.empty(y.shape, dtype=torch.uint8)
    _call("max_pool", ctypes.byref(window), x, y, taps)
    return y, taps


def max_pool_back(
    d_y: Tensor, taps: Tensor, shape: torch.Size, size: int = 3, stride: int = 2, padding: int = 1
) -> Tensor:
    """The way back through `max_pool` of a tensor of ``shape``."""
    d_x = torch.empty(shape)
    _call("max_pool_back", ctypes.byref(_window(shape, size, stride, padding)), d_y, taps, d_x)
    return d_x


def mean(x: Tensor) -> Tensor:
    """Mean over all pixels, [B, C, 1, 1, 16]."""
    y = torch.empty(*x.shape[:2], 1, 1, LANES)
    _call("mean", x, *_sizes(x.shape[0] * x.shape[1], x.shape[2] * x.shape[3]), y)
    return y


def mean_back(d_y: Tensor, height: int, width: int) -> Tensor:
    """The way back through `mean`."""
    d_x = torch.empty(*d_y.shape[:2], height, width, LANES)
    _call("mean_back", d_y, *_sizes(d_y.shape[0] * d_y.shape[1], height * width), d_x)
    return d_x


def _sizes(*sizes: int) -> tuple[ctypes.c_int32, ...]:
    return tuple(ctypes.c_int32(size) for size in sizes)


def _call(name: str, *arguments: Any) -> None:
    library = native.library("lanes_layers")
    assert library is not None
    pointers = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
    getattr(library, f"campfire_lanes_{name}")(*pointers)
