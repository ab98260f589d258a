"""Quantising a whole network: its weights replaced by what their codes stand for, and shared values that train on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from campfire.errors import DoesNotFit, UnknownName, UsageError
from campfire.quantise.base import Values, decode, encode
from campfire.quantise.codebook import Codebook
from campfire.quantise.kmeans import nearest


@dataclass(frozen=True)
class QuantisedLayer:
    """One layer: how many weights it has and keeps, the bytes of codes and table, and the error over the weights' size."""

    name: str
    weights: int
    living: int
    nbytes: int  # without the mask
    error: float  # root of the sum of squared differences, over that of the squared weights


@torch.no_grad()
def quantise_(model: nn.Module, values: Values, keep: Mapping[str, Tensor] | None = None) -> list[QuantisedLayer]:
    """Replace the weights of all convolutions and linear layers by quantised ones, in place; dead weights stay zero.

    Args:
        values: how they are written, as ``named("codebook:4")``.
        keep: which weights live, by layer name; a layer that is not named lives whole.

    Raises:
        UnknownName: ``keep`` names no convolution or linear layer.
        CampfireError: a weight is not finite.

    >>> from campfire.quantise import named
    >>> net = nn.Linear(64, 10)
    >>> layer, = quantise_(net, named("codebook:2"))
    >>> len(net.weight.unique()), layer.nbytes
    (4, 176)
    """
    rows = []
    for name, module in _layers(model, keep).items():
        weight, living = module.weight, _keep(module, name, keep)
        codes = encode(values, weight, living)
        new = decode(values, codes, living, tuple(weight.shape)).to(weight)
        size, lost = float(weight.double().norm()), float((weight - new).double().norm())
        error = lost / size if size else 0.0
        rows.append(QuantisedLayer(name, weight.numel(), codes.codes.numel(), codes.nbytes, error))
        weight.copy_(new)
    return rows


def share_(model: nn.Module, bits: int, keep: Mapping[str, Tensor] | None = None) -> None:
    """Make each layer's 2^bits shared values its Parameter, so that any loop trains them under the mask.

    The gradient of a shared value is the sum of those of its weights (Han et al. 2016). Make the optimizer afterwards;
    `bake_` ends it. Raises as `quantise_` does.

    >>> net = nn.Conv2d(3, 8, 3)
    >>> share_(net, bits=3)
    >>> [tuple(p.shape) for p in net.parameters()], len(net.weight.unique())
    ([(8,), (8,)], 8)
    >>> bake_(net)
    >>> tuple(net.weight.shape)
    (8, 3, 3, 3)
    """
    for name, module in _layers(model, keep).items():
        living = _keep(module, name, keep)
        table = encode(Codebook(bits), module.weight, living).table
        parametrize.register_parametrization(module, "weight", Shared(table, living))


def bake_(model: nn.Module) -> None:
    """Turn shared values back into ordinary weights."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight") and any(
            isinstance(step, Shared)
            for step in module.parametrizations["weight"]  # pyright: ignore
        ):
            parametrize.remove_parametrizations(module, "weight")


class Shared(nn.Module):
    """A weight made of a few shared values; zero where it is dead."""

    codes: Tensor
    places: Tensor
    table: Tensor

    def __init__(self, table: Tensor, keep: Tensor):
        super().__init__()
        self.shape = keep.shape
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("places", keep.reshape(-1).nonzero()[:, 0], persistent=False)
        self.register_buffer("codes", torch.empty(0, dtype=torch.int64), persistent=False)

    def right_inverse(self, weight: Tensor) -> Tensor:
        living = weight.reshape(-1)[self.places].double().cpu().numpy()
        self.codes = torch.from_numpy(nearest(living, self.table.double().cpu().numpy())).to(weight.device)
        return self.table.to(weight)

    def forward(self, table: Tensor) -> Tensor:
        dense = table.new_zeros(math.prod(self.shape))
        return dense.index_put((self.places,), table[self.codes]).view(self.shape)


def _layers(model: nn.Module, keep: Mapping[str, Tensor] | None) -> dict[str, nn.Conv2d | nn.Linear]:
    found = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    for name in keep or {}:
        if name not in found:
            raise UnknownName("convolution or linear layer", name, found)
    if not found:
        raise UsageError(f"{type(model).__name__} has no convolution or linear layer to quantise")
    return found


def _keep(module: nn.Conv2d | nn.Linear, name: str, keep: Mapping[str, Tensor] | None) -> Tensor:
    mask = (keep or {}).get(name)
    weight = module.weight
    if mask is None:
        return torch.ones_like(weight, dtype=torch.bool)
    if mask.numel() != weight.numel():
        raise DoesNotFit(f"a mask {list(mask.shape)}", f"layer {name!r}", [f"its weight is {list(weight.shape)}"])
    return mask.to(weight.device).reshape(weight.shape)
