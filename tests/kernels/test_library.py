"""The library's gradients: right in every case, and nothing is written past their memory."""

import ctypes.util
import os
import subprocess
import sys

import pytest
import torch

from campfire.kernels.base import Conv
from campfire.kernels.library import convolution_backward

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(("channels", "groups"), [(3, 1), (8, 1), (16, 1), (20, 1), (8, 4)])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 5)])
@pytest.mark.parametrize("conv", [Conv(stride=2), Conv(stride=3), Conv(stride=2, padding=1), Conv()])
def test_the_gradients_are_those_of_autograd(
    form: str, channels: int, groups: int, size: tuple[int, int], conv: Conv
) -> None:
    conv = Conv(conv.stride, conv.padding, conv.dilation, groups)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *size, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(12, channels // groups, 1, 1, generator=generator, dtype=torch.float64, requires_grad=True)
    y = torch.nn.functional.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation, groups)
    dy = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    y.backward(dy)
    given = [t.detach().float().contiguous(memory_format=FORMATS[form]) for t in (dy, x, weight)]
    dx, _, _ = convolution_backward(*given, conv, [True, False, False])
    _, dw, _ = convolution_backward(*given, conv, [False, True, False])
    torch.testing.assert_close(dx.double(), x.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dw.double(), weight.grad, rtol=1e-4, atol=1e-5)


GRADIENT = """
import torch
from campfire.kernels.base import Conv
from campfire.kernels.library import convolution_backward
torch.set_num_threads(2)
form = dict(memory_format=torch.channels_last)
x, dy, weight = (torch.randn(s).to(**form) for s in ((16, 8, 224, 224), (16, 3, 112, 112), (3, 8, 1, 1)))
for _ in range(2):
    convolution_backward(dy, x, weight, Conv(stride=2), [False, True, False])
print("whole")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux") or ctypes.util.find_library("c") is None, reason="needs glibc")
def test_a_strided_1x1_of_few_channels_leaves_the_heap_whole() -> None:
    """Called directly, torch 2.13 dies here: "free(): invalid pointer" (oneDNN issue 6035)."""
    checked = {"GLIBC_TUNABLES": "glibc.malloc.check=3", "LD_PRELOAD": "libc_malloc_debug.so.0"}
    done = subprocess.run(
        [sys.executable, "-c", GRADIENT], env={**os.environ, **checked}, capture_output=True, text=True
    )
    assert done.stdout == "whole\n", done.stderr
