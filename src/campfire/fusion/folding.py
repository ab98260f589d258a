"""Batch normalisation in the layer before it: scaled weights and a bias, computed in float64 and rounded once."""

import math

import torch
from torch import Tensor, nn

from campfire.nn import BatchNorm2d, SparseConv2d, SparseLinear
from campfire.nn.base import SparseLayer
from campfire.packed import LAYOUTS

Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
Layer = nn.Conv2d | nn.Linear | SparseLayer
NORMS: dict[type, tuple[type, ...]] = {
    nn.Conv2d: (nn.BatchNorm2d, BatchNorm2d, nn.SyncBatchNorm),
    SparseConv2d: (nn.BatchNorm2d, BatchNorm2d, nn.SyncBatchNorm),
    nn.Linear: (nn.BatchNorm1d,),
    SparseLinear: (nn.BatchNorm1d,),
}


def why_not_fold(layer: nn.Module, norm: Norm) -> list[str]:
    """Reasons why a layer cannot take over the normalisation of its result; [] when it can.

    >>> why_not_fold(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    ['it has no running statistics']
    """
    if type(norm) not in NORMS.get(type(layer), ()):
        return [f"it follows a {type(layer).__name__}"]
    if norm.running_mean is None or norm.running_var is None:
        return ["it has no running statistics"]
    outputs = layer.out_features if isinstance(layer, (nn.Linear, SparseLinear)) else layer.out_channels
    return [] if norm.num_features == outputs else [f"it has {norm.num_features} channels, the layer {outputs}"]


@torch.no_grad()
def fold_(layer: nn.Module, norm: Norm) -> None:
    """Give the layer new weights and a new bias, so that it computes what both did in eval mode.

    >>> layer, norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4).eval()
    >>> x = torch.randn(2, 1, 8, 8)
    >>> both = norm(layer(x))
    >>> fold_(layer, norm)
    >>> torch.allclose(layer(x), both, atol=1e-6)
    True
    """
    assert isinstance(layer, Layer)
    scale, shift = _affine(norm)
    weight = layer.value if isinstance(layer, SparseLayer) else layer.weight
    old = 0.0 if layer.bias is None else layer.bias.double() * scale
    layer.bias = nn.Parameter((old + shift).to(weight.dtype), requires_grad=False)
    scaled = nn.Parameter((weight.double() * _per_weight(layer, scale)).to(weight.dtype), requires_grad=False)
    if isinstance(layer, SparseLayer):
        layer.value = scaled
    else:
        layer.weight = scaled


def _affine(norm: Norm) -> tuple[Tensor, Tensor]:
    """Batch normalisation as y = scale x + shift, float64 [K]."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.double()


def _per_weight(layer: Layer, scale: Tensor) -> Tensor:
    """The scale of the output that each weight, or each packed value, belongs to."""
    if not isinstance(layer, SparseLayer):
        return scale.view(-1, *[1] * (layer.weight.dim() - 1))
    outputs = LAYOUTS[layer.layout].positions(layer.packed) // math.prod(layer.shape[1:])
    return scale[outputs.to(scale.device)].view(layer.value.shape)
