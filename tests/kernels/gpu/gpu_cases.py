"""Weights of blocks, and three passes beside float64: on a GPU where there is one, else on the CPU by Triton's interpreter."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from campfire.kernels import KERNELS, Conv
from campfire.kernels.gpu import toolchain
from campfire.kernels.gpu.kernel import GpuPasses
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
needs_triton = pytest.mark.skipif(not toolchain.has_triton(), reason="Triton is not installed")
Size = tuple[int, ...]
PADDED = Conv(1, 1)


@dataclass(frozen=True)
class Case:
    """A layer of whole blocks, as it is packed and run."""

    shape: Size
    block: tuple[int, int] = (64, 64)
    taps: bool = False  # whether blocks hold one tap (HRBP++) or all (HRBP)
    tile: tuple[int, int] = (32, 4)  # it is packed in
    ordered: bool = False
    conv: Conv = PADDED
    size: tuple[int, int, int] = (2, 5, 7)  # images, height, width
    dtype: torch.dtype = torch.float32
    mask: str = "some"
    seed: int = 0

    @property
    def input(self) -> Size:
        """[N, C, H, W]."""
        return self.size[0], self.shape[1], *self.size[1:]

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def keep(self) -> Tensor:
        """Which weights live; "empty": a group of outputs without any."""
        box = (*self.block, 1, 1) if self.taps else (*self.block, *self.shape[2:])
        some = torch.rand([n // t for n, t in zip(self.shape, box, strict=True)], generator=self.generator()) > 0.5
        some[-1, -1] = True
        if self.mask in ("empty", "none"):
            some[0 if self.mask == "empty" else slice(None)] = False
        elif self.mask == "full":
            some[:] = True
        for axis, times in enumerate(box):
            some = some.repeat_interleave(times, axis)
        return some

    def packed(self) -> Packed:
        keep, generator = self.keep(), self.generator()
        taps = (1, 1) if self.taps else self.shape[2:]
        options: dict[str, object] = {"tile": (*self.tile, *taps)}
        if self.ordered:
            options["order"] = order = torch.randperm(self.shape[0], generator=generator)
            keep = torch.empty_like(keep).index_copy_(0, order, keep)
        weight = torch.randn(self.shape, generator=generator).to(DEVICE, self.dtype)
        return pack(weight, Mask(keep.to(DEVICE)), "grouped" if self.ordered else "unit", **options)

    def inputs(self) -> tuple[Tensor, Tensor]:
        """x and dy, in NHWC."""
        generator = self.generator()
        shapes = self.input, self.conv.output(self.input, self.shape)
        x, dy = (torch.randn(shape, generator=generator).to(DEVICE, self.dtype) for shape in shapes)
        return x.contiguous(memory_format=torch.channels_last), dy.contiguous(memory_format=torch.channels_last)


def passes_of(case: Case, packed: Packed) -> GpuPasses:
    passes = KERNELS["blocks-gpu"].prepare(packed, case.conv)
    assert isinstance(passes, GpuPasses)
    return passes


def run(case: Case, packed: Packed, passes: GpuPasses) -> dict[str, Tensor]:
    """All three passes; what they do not write is NaN."""
    (x, dy), value = case.inputs(), packed.parts["value"]
    with poisoned():
        return {
            "forward": passes.forward(x, value, None),
            "d_input": passes.d_input(dy, value, case.input),
            "d_values": passes.d_values(dy, x),
        }


def dense(case: Case, packed: Packed, dtype: torch.dtype) -> dict[str, Tensor]:
    """By the dense library, in another dtype, on the CPU."""
    x, dy = (t.cpu().to(dtype) for t in case.inputs())
    weight = packed.dense().cpu().to(dtype).requires_grad_()
    c = case.conv
    y = conv2d(x.requires_grad_(), weight, stride=c.stride, padding=c.padding, dilation=c.dilation)
    y.backward(dy)
    assert x.grad is not None
    assert weight.grad is not None
    gradient = LAYOUTS[packed.layout].gather(packed, weight.grad.to(DEVICE)).cpu()
    return {"forward": y.detach(), "d_input": x.grad, "d_values": gradient}


def agrees(case: Case) -> None:
    """Every pass within a few times the dense library's own error; TF32 has the mantissa of float16."""
    packed = case.packed()
    got, exact = run(case, packed, passes_of(case, packed)), dense(case, packed, torch.float64)
    rough = torch.float16 if case.dtype == torch.float32 and DEVICE.type == "cuda" else case.dtype
    near = dense(case, packed, rough)
    for name, wanted in exact.items():
        found = got[name].cpu().double()
        assert got[name].dtype == case.dtype
        scale = float(wanted.abs().max()) if wanted.numel() else 0.0
        limit = 4 * float((near[name] - wanted).abs().max()) + torch.finfo(rough).eps * scale if scale else 0.0
        error = float((found - wanted).abs().max()) if wanted.numel() else 0.0
        assert error <= limit, f"{name}: {error} > {limit}, {case}"


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """New memory holds NaN."""
    kinds = [(torch, "empty"), (torch.Tensor, "new_empty"), (torch.Tensor, "new_empty_strided")]
    with contextlib.ExitStack() as stack:
        for owner, name in kinds:
            stack.enter_context(mock.patch.object(owner, name, _filled(getattr(owner, name))))
        yield


def _filled(make):
    def filled(*args: object, **kwargs: object) -> Tensor:
        made = make(*args, **kwargs)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    return filled
