"""Layers on which the bfloat16 block kernels are compared with float64, and the comparison."""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire.kernels import KERNELS, Conv
from campfire.kernels.blocks.bf16 import Bf16Passes
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack

CPU, HALF = torch.device("cpu"), torch.bfloat16
GEOMETRIES = [(3, 1), (1, 0), (3, 0), (3, 2), (5, 2), (1, 1)]  # taps, padding
SIZES = [(3, 7, 9), (1, 13, 8), (16, 5, 5), (2, 14, 15), (1, 4, 3)]  # images, height, width
THIN = [(2, 3, 1), (2, 1, 3), (2, 1, 1)]  # at stride 2 no pixel has the other phase


def mask(shape: tuple[int, ...], tile: tuple[int, ...], seed: int, kind: str = "some") -> Tensor:
    """Living tiles [K, C, R, S]: scattered, with an empty row group, all, or one."""
    counts = [n // t for n, t in zip(shape, tile, strict=True)]
    keep = torch.rand(counts, generator=torch.Generator().manual_seed(seed)) > 0.6
    keep[-1, -1] = True
    if kind == "empty group":
        keep[0] = False
    if kind in ("full", "one"):
        keep[:] = kind == "full"
        keep[-1, 0, 0, 0] = True
    for axis, times in enumerate(tile):
        keep = keep.repeat_interleave(times, axis)
    return keep


def packed(keep: Tensor, tile: tuple[int, ...], order: Tensor | None = None, seed: int = 0) -> Packed:
    if order is not None:
        keep = torch.empty_like(keep).index_copy_(0, order, keep)
    weight = torch.randn(keep.shape, generator=torch.Generator().manual_seed(seed)).to(HALF).float()
    options = {"tile": tile} if order is None else {"tile": tile, "order": order}
    return pack(weight, Mask(keep), "unit" if order is None else "grouped", **options)


def shuffled(rows: int) -> Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(1))


def prepared(kernel: str, weight: Packed, conv: Conv) -> Bf16Passes:
    passes = KERNELS[kernel].prepare(weight, conv)
    assert isinstance(passes, Bf16Passes)
    return passes


def operands(weight: Packed, conv: Conv, size: tuple[int, int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    generator, shape = torch.Generator().manual_seed(seed), (size[0], weight.shape[1], *size[1:])
    x = torch.randn(shape, generator=generator).to(HALF)
    dy = torch.randn(conv.output(shape, tuple(weight.shape)), generator=generator).to(HALF)
    return x, dy


def three(x: Tensor, weight: Tensor, dy: Tensor, conv: Conv) -> tuple[Tensor, Tensor, Tensor]:
    """The dense passes, in the dtype of the operands."""
    x, weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    y = conv2d(x, weight, stride=conv.stride, padding=conv.padding)
    y.backward(dy)
    assert x.grad is not None
    assert weight.grad is not None
    return y.detach(), x.grad, weight.grad


def passes_agree(kernel: str, weight: Packed, conv: Conv, size: tuple[int, int, int], seed: int = 0) -> None:
    """All three passes, outputs poisoned with NaN before, within a few times the dense library's own error in bfloat16."""
    x, dy = operands(weight, conv, size, seed)
    value, gather = weight.parts["value"].to(HALF), LAYOUTS[weight.layout].gather
    exact = three(x.double(), weight.dense().double(), dy.double(), conv)
    library = three(x, weight.dense().to(HALF), dy, conv)
    with poisoned():
        passes = prepared(kernel, weight, conv)
        got = passes.forward(x, value, None), passes.d_input(dy, value, tuple(x.shape)), passes.d_values(dy, x)
    for name, a, b, c in zip(("forward", "d_input", "d_values"), got, exact, library, strict=True):
        assert a.dtype == HALF
        b, c = (gather(weight, t) if name == "d_values" else t for t in (b, c))
        error = (
            (c - b).abs().nan_to_num(0)
        )  # for images of a pixel or three the library leaves NaN in some gradients of weights
        limit = 2 * float(error.max()) + 2**-8 * float(b.abs().max())
        assert float((a - b).abs().max()) <= limit, f"{name}: {float((a - b).abs().max())} > {limit}"


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """New memory holds NaN, so that what a kernel does not write is seen."""
    empty = torch.empty

    def filled(*args: object, **options: object) -> Tensor:
        new = empty(*args, **options)  # pyright: ignore
        return new.fill_(float("nan")) if new.is_floating_point() else new

    with mock.patch.object(torch, "empty", filled):
        yield
