"""A sparse convolution under bfloat16 autocast, beside the dense one."""

import torch
from torch import nn

from campfire.kernels.choice import Choice
from campfire.mask import Mask
from campfire.nn import SparseConv2d
from campfire.packed import LAYOUTS


def test_a_layer_under_autocast() -> None:
    dense, keep = nn.Conv2d(64, 64, 3, padding=1), torch.zeros(64, 64, 3, 3, dtype=torch.bool)
    keep[:32, 32:] = keep[32:, :32] = True
    with torch.no_grad():
        dense.weight *= keep
    layer = SparseConv2d.of(dense, Mask(keep), "unit", tile=(32, 32, 3, 3))
    if not Choice.of("blocks-bf16").why_not(layer.packed, layer.conv, torch.bfloat16, keep.device):
        layer.assign(Choice.of("blocks-bf16"), torch.bfloat16)
    x, found = torch.randn(2, 64, 7, 6), []
    for module in (dense, layer):
        given = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = module(given)
        y.float().square().sum().backward()
        assert y.dtype == torch.bfloat16
        found.append((y.detach().float(), given.grad))
    for a, b in zip(*found, strict=True):
        assert float((a - b).abs().max()) <= 2**-6 * float(a.abs().max())
    assert layer.value.grad is not None
    assert layer.value.grad.dtype == torch.float32
    gradient = LAYOUTS["unit"].gather(layer.packed, dense.weight.grad)
    assert float((layer.value.grad - gradient).abs().max()) <= 2**-6 * float(gradient.abs().max())
