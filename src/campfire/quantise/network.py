"""Quantising a whole network: its weights replaced by what their codes stand for, and shared values that train on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from campfire.errors import DoesNotFit, UnknownName, UsageError
from campfire.naming import bare, by_layer, named_layers
from campfire.quantise.base import Values, decode, encode
from campfire.quantise.codebook import Codebook
from campfire.quantise.kmeans import nearest


@dataclass(frozen=True)
class QuantisedLayer:
    """One layer: how many weights it has and keeps, the bytes of codes and table, and the error over the weights' size.

    Of a layer that is of no kind that is quantised, ``reason`` says so; it keeps all its weights, as they are.
    """

    name: str
    weights: int
    living: int
    nbytes: int  # without the mask
    error: float  # root of the sum of squared differences, over that of the squared weights
    reason: str | None = None  # why it is left as it is


@torch.no_grad()
def quantise_(model: nn.Module, values: Values, keep: Mapping[str, Tensor] | None = None) -> list[QuantisedLayer]:
    """Replace the weights of all `nn.Conv2d` and `nn.Linear` layers by quantised ones, in place; dead weights stay zero.

    Other modules with weights of two axes or more (1-D, 3-D and transposed convolutions, embeddings, compressed layers) stay
    as they are, each with a row that says so. A weight that layers share is one row, and lives where all their masks do.

    Args:
        values: how they are written, as ``named("codebook:4")``.
        keep: which weights live, by layer name, as a pruner names them; a layer that is not named lives whole.

    Raises:
        UnknownName: ``keep`` names no layer that is quantised.
        DoesNotFit: a mask is of another size, or a weight is computed, as by weight normalisation.
        CampfireError: a weight is not finite.

    >>> from campfire.quantise import named
    >>> net = nn.Linear(64, 10)
    >>> layer, = quantise_(net, named("codebook:2"))
    >>> len(net.weight.unique()), layer.nbytes
    (4, 176)
    """
    rows, layers = [], _layers(model)
    masks = _masks(model, layers, keep)
    for name, living in masks.items():
        weight = layers[name].weight
        codes = encode(values, weight, living)
        new = decode(values, codes, living, tuple(weight.shape)).to(weight)
        size, lost = float(weight.double().norm()), float((weight - new).double().norm())
        error = lost / size if size else 0.0
        rows.append(QuantisedLayer(name, weight.numel(), codes.codes.numel(), codes.nbytes, error))
        weight.copy_(new)
    return rows + _left(model, {id(layer.weight) for layer in layers.values()})


def share_(model: nn.Module, bits: int, keep: Mapping[str, Tensor] | None = None) -> None:
    """Make each layer's 2^bits shared values its Parameter, so that any loop trains them under the mask.

    The gradient of a shared value is the sum of those of its weights (Han et al. 2016). Make the optimizer afterwards;
    `bake_` ends it. The state dict holds, for each layer, the values and which weight has which. Raises as `quantise_`
    does; and DoesNotFit where layers share a weight.

    >>> net = nn.Conv2d(3, 8, 3)
    >>> share_(net, bits=3)
    >>> [tuple(p.shape) for p in net.parameters()], len(net.weight.unique())
    ([(8,), (8,)], 8)
    >>> bake_(net)
    >>> tuple(net.weight.shape)
    (8, 3, 3, 3)
    """
    layers = _layers(model)
    _require_untied(model, layers)
    masks = _masks(model, layers, keep)
    tables = {name: encode(Codebook(bits), layers[name].weight, living).table for name, living in masks.items()}
    for name, living in masks.items():
        parametrize.register_parametrization(layers[name], "weight", Shared(tables[name], living))


def bake_(model: nn.Module) -> None:
    """Turn shared values back into ordinary weights."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight") and any(
            isinstance(step, Shared)
            for step in module.parametrizations["weight"]  # pyright: ignore
        ):
            parametrize.remove_parametrizations(module, "weight")


class Shared(nn.Module):
    """A weight made of a few shared values; zero where it is dead.

    ``codes`` and ``places`` are of the state dict: values alone do not tell the weight. ``table`` only says which value
    each weight begins with, and is not.
    """

    codes: Tensor
    places: Tensor
    table: Tensor

    def __init__(self, table: Tensor, keep: Tensor):
        super().__init__()
        self.shape = keep.shape
        self.register_buffer("table", table, persistent=False)
        self.register_buffer("places", keep.reshape(-1).nonzero()[:, 0])
        self.register_buffer("codes", torch.empty(0, dtype=torch.int64))

    def right_inverse(self, weight: Tensor) -> Tensor:
        living = weight.reshape(-1)[self.places].double().cpu().numpy()
        self.codes = torch.from_numpy(nearest(living, self.table.double().cpu().numpy())).to(weight.device)
        return self.table.to(weight)

    def forward(self, table: Tensor) -> Tensor:
        dense = table.new_zeros(math.prod(self.shape))
        return dense.index_put((self.places,), table[self.codes]).view(self.shape)


Layer = nn.Conv2d | nn.Linear


def _layers(model: nn.Module) -> dict[str, Layer]:
    found = {name: module for name, module in named_layers(model) if isinstance(module, Layer)}
    if not found:
        raise UsageError(
            f"{type(bare(model)).__name__} has no convolution or linear layer (nn.Conv2d, nn.Linear) to quantise"
        )
    for name, module in found.items():
        if module._parameters.get("weight") is None:
            reason = (
                "its weight is computed at every use, and what is written there is lost; make it a Parameter first, by "
                "bake_ (shared values), torch.nn.utils.parametrize.remove_parametrizations or torch.nn.utils.prune.remove"
            )
            raise DoesNotFit("quantisation", f"layer {name!r}", [reason])
    return found


def _require_untied(model: nn.Module, layers: Mapping[str, Layer]) -> None:
    owners: dict[int, list[str]] = {}
    for name, module in named_layers(model):
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), []).append(name)
    for layer in layers.values():
        if len(names := owners[id(layer.weight)]) > 1:
            reason = "they have one weight, and would each get values of their own; give each a copy of it first"
            raise DoesNotFit("sharing values", f"layers {' and '.join(map(repr, names))}", [reason])


def _masks(model: nn.Module, layers: Mapping[str, Layer], keep: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """What lives of every weight, by the first layer that has it."""
    given = by_layer(model, keep or {})
    for name in given:
        if name not in layers:
            raise UnknownName("convolution or linear layer", name, layers)
    first: dict[int, str] = {}
    masks: dict[str, Tensor] = {}
    for name, module in layers.items():
        mask, owner = _keep(module, name, given), first.setdefault(id(module.weight), name)
        masks[owner] = masks[owner] & mask if owner in masks else mask
    return masks


def _keep(module: Layer, name: str, given: Mapping[str, Tensor]) -> Tensor:
    mask, weight = given.get(name), module.weight
    if mask is None:
        return torch.ones_like(weight, dtype=torch.bool)
    if mask.numel() != weight.numel():
        raise DoesNotFit(f"a mask {list(mask.shape)}", f"layer {name!r}", [f"its weight is {list(weight.shape)}"])
    return mask.to(weight.device).reshape(weight.shape)


def _left(model: nn.Module, quantised: set[int]) -> list[QuantisedLayer]:
    """Modules of other kinds whose own weights somebody may think quantised."""
    rows = []
    for name, module in named_layers(model):
        weights = [p for p in module.parameters(recurse=False) if p.dim() > 1 and id(p) not in quantised]
        if weights:
            count, nbytes = sum(p.numel() for p in weights), sum(p.numel() * p.element_size() for p in weights)
            reason = f"{type(module).__name__} is not quantised, only nn.Conv2d and nn.Linear are"
            rows.append(QuantisedLayer(name, count, count, nbytes, 0.0, reason))
    return rows
