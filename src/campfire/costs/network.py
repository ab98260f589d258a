"""The costs of a network: a row for every convolution and linear layer that runs, and totals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from campfire.costs.activity import activity
from campfire.costs.energy import Energy
from campfire.costs.layer import Counting, LayerCost, as_mask, is_watched, own_mask
from campfire.costs.macs import layer_macs, packed_of
from campfire.costs.storage import mask_bytes as one_bit_a_unit
from campfire.costs.totals import totals
from campfire.errors import UsageError
from campfire.naming import bare, by_layer, named_layers

ARRAY = 16  # processing elements
COMPUTED = ("weight_orig", "weight_g", "weight_v")  # of prune, spectral_norm and weight_norm in torch.nn.utils


@dataclass(frozen=True)
class NetworkCost:
    """All layers in the order they run, and the parameters of the whole model, a weight that layers share once."""

    layers: Sequence[LayerCost]
    parameters: int
    living_parameters: int
    images: int  # that activations were counted on
    energy: Energy

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers: ``layers``, and totals of the ``convolutions`` and of ``all``; for one image."""
        rows = [
            {"name": r.name, "shape": list(r.shape), "grain": r.grain, "biases": r.biases, **totals([r], self.energy)}
            for r in self.layers
        ]
        return {
            "parameters": self.parameters,
            "living_parameters": self.living_parameters,
            "images": self.images,
            "energy_model_pj": asdict(self.energy),
            "layers": rows,
            "convolutions": totals([r for r in self.layers if not r.linear], self.energy),
            "all": totals(self.layers, self.energy),
        }


def cost(
    model: nn.Module,
    input_shape: Sequence[int],
    keep: Mapping[str, Tensor] | None = None,
    images: Tensor | None = None,
    *,
    value_bits: int = 32,
    array: int = ARRAY,
    energy: Energy | None = None,
    mask_bytes: Callable[[Tensor], int] = one_bit_a_unit,
) -> NetworkCost:
    """What a network costs: parameters, zeros by grain, MACs, storage; on images also references, balance and energy.

    Args:
        model: dense with zeros, or compressed.
        input_shape: of one image, [channels, height, width].
        keep: which weights live, by layer, as a pruner names it; of a layer that is not named, those that are not zero, and it counts as dense
            where that is stored in less (`campfire.costs.storage.Stored`).
        images: [N, C, H, W] whose activations are counted; without them, only weights are.
        value_bits: of a stored weight and of an activation.
        array: processing elements among which work is dealt.
        energy: picojoules of operations.
        mask_bytes: of a mask in a file; default: a bit for every unit of its grain.

    Raises:
        CampfireError: the model does not run on such an image.
        UnknownName: ``keep`` names no layer.
        DoesNotFit: a mask is not of its layer's size.
        UsageError: no bits, or no elements.

    >>> import torch
    >>> net = nn.Conv2d(4, 8, 3, bias=False)
    >>> net.weight.data[4:] = 0
    >>> found = cost(net, (4, 6, 6), images=torch.ones(1, 4, 6, 6)).to_dict()["all"]
    >>> found["sparse_macs"], found["sparsity"]["filter"], found["activity"]["references"]["row_merge"]
    (2304, 0.5, 768.0)
    """
    if value_bits < 1 or array < 1:
        raise UsageError(f"values have bits, and an array has elements; got {value_bits} and {array}")
    model, keep = bare(model), by_layer(model, keep or {})
    dense, modules = layer_macs(model, input_shape), dict(named_layers(model))
    layers = {name: modules[name] for name in dense}
    given = {name: as_mask(mask != 0) for name, mask in keep.items()}
    masks = {name: given[name] if name in given else own_mask(m) for name, m in layers.items()}
    sparse = layer_macs(model, input_shape, {**masks, **given})
    watched = {name: mask for name, mask in masks.items() if is_watched(layers[name])}
    live = {} if images is None else activity(model, watched, images)
    how = Counting(value_bits, array, mask_bytes)
    rows = [
        LayerCost.of(n, m, masks[n], (dense[n], sparse[n]), live.get(n), how, n in given or packed_of(m) is not None)
        for n, m in layers.items()
    ]
    return NetworkCost(
        rows, *_parameters(model, layers, masks), 0 if images is None else len(images), energy or Energy()
    )


def _parameters(model: nn.Module, layers: Mapping[str, nn.Module], masks: Mapping[str, Tensor]) -> tuple[int, int]:
    """All parameters, and those that live: weights that layers share once, and no double of what weights are made of."""
    weights: dict[tuple[int, ...], Tensor] = {}
    for name, module in layers.items():
        made_of = tuple(id(p) for p in _made_of(module))
        weights[made_of] = weights[made_of] | masks[name] if made_of in weights else masks[name]
    counted = {i for made_of in weights for i in made_of}
    others = sum(p.numel() for p in model.parameters() if id(p) not in counted)
    living = sum(int(mask.count_nonzero()) for mask in weights.values())
    return others + sum(mask.numel() for mask in weights.values()), others + living


def _made_of(module: nn.Module) -> list[Tensor]:
    """What a layer's weight is, or is computed from: the tensors of a parametrization, or of older hooks of torch's."""
    if packed_of(module) is not None:
        return [module.value]  # pyright: ignore[reportReturnType]
    if parametrize.is_parametrized(module, "weight"):
        own: nn.Module = module.parametrizations.weight  # pyright: ignore[reportAttributeAccessIssue, reportAssignmentType]
        return [*own.parameters(), *own.buffers()]
    found = [p for name in COMPUTED if (p := module._parameters.get(name)) is not None]
    return found or [module.weight]  # pyright: ignore[reportReturnType]
