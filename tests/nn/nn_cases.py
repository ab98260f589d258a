"""Sparse layers and their dense twins."""

import torch
from torch import Tensor, nn

from campfire.mask import Mask, view4
from campfire.nn import SparseConv2d, SparseLinear

LAYOUTS = ("csr", "unit", "grouped", "tap", "shrunk")


def keep_of(layout: str, shape: tuple[int, ...], seed: int = 0) -> Mask:
    """A mask that the layout holds: bool [K, C, R, S]."""
    outputs, inputs = shape[:2]
    generator = torch.Generator().manual_seed(seed)
    if layout == "shrunk":
        keep = torch.zeros(shape, dtype=torch.bool)
        keep[1:, ::2] = True
        return Mask(keep)
    if layout in ("unit", "grouped"):
        rows = torch.rand(outputs // 4, inputs, 1, 1, generator=generator) < 0.5
        rows[0, 0] = True
        keep = rows.repeat_interleave(4, 0).expand(shape).clone()
        order = torch.randperm(outputs, generator=generator)
        if layout == "unit":
            return Mask(keep)
        return Mask(torch.empty_like(keep).index_copy_(0, order, keep), {"order": order})
    keep = torch.rand(shape, generator=generator) < 0.4
    keep[0, 0, 0, 0] = True
    return Mask(keep)


def conv_pair(layout: str = "csr", **options: int) -> tuple[SparseConv2d, nn.Conv2d]:
    """A sparse convolution and a dense one with the same, masked, weight; float64."""
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 16, 3, **{"padding": 1, **options}).double()
    return _pair(dense, layout)


def linear_pair(layout: str = "csr") -> tuple[SparseLinear, nn.Linear]:
    torch.manual_seed(0)
    return _pair(nn.Linear(8, 16).double(), layout)


def _pair(dense: nn.Conv2d | nn.Linear, layout: str):
    mask = keep_of(layout, tuple(view4(dense.weight).shape))
    with torch.no_grad():
        dense.weight.mul_(mask.keep.view(dense.weight.shape))
    kind = SparseConv2d if isinstance(dense, nn.Conv2d) else SparseLinear
    sparse = kind.of(dense, mask, layout)
    sparse.bias = nn.Parameter(dense.bias.detach().clone())
    return sparse, dense


def images(n: int = 2, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, 8, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def tall_conv() -> tuple[SparseConv2d, nn.Conv2d]:
    """Tiles of 16 outputs in float32, which native code serves where there is any."""
    torch.manual_seed(0)
    dense = nn.Conv2d(8, 32, 3, padding=1)
    keep = (torch.rand(2, 8, 1, 1) < 0.5).repeat_interleave(16, 0).expand(32, 8, 3, 3).clone()
    with torch.no_grad():
        dense.weight.mul_(keep)
    sparse = SparseConv2d.of(dense, Mask(keep), "unit")
    sparse.bias = nn.Parameter(dense.bias.detach().clone())
    return sparse, dense
