"""Listing: every layer of a model with its sparsity, or the reason why it is dense."""

import dataclasses
from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from campfire.mask import view4
from campfire.naming import named_layers
from campfire.sparsity import LayerSparsity, SparsityReport


def report_of(model: nn.Module, pruned: Mapping[str, LayerSparsity], dense: Mapping[str, str]) -> SparsityReport:
    """The pruned layers and, with their reasons, the dense ones, in the model's order."""
    rows, seen = [], set()
    layers = dict(named_layers(model))
    for name, module in layers.items():
        if name in pruned:
            rows.append(pruned[name])
            seen.add(id(module.weight))
        elif name in dense:
            rows.append(_dense(name, module, dense[name], seen))
    held = sum(p.numel() for p in model.parameters() if not isinstance(p, UninitializedParameter))
    listed = sum(_held(layers[row.name], row) for row in rows)
    return SparsityReport(rows, other=max(0, held - listed))


def _held(module: nn.Module, row: LayerSparsity) -> int:
    """How many parameters a row stands for: of a compressed layer there are only the survivors."""
    value = module._parameters.get("value")
    return row.weights if value is None else value.numel()


def _dense(name: str, module: nn.Module, reason: str, seen: set[int]) -> LayerSparsity:
    weight, conv = getattr(module, "weight", None), isinstance(module, nn.modules.conv._ConvNd)
    if not isinstance(weight, Tensor) or isinstance(weight, UninitializedParameter):
        return LayerSparsity(name, (), None, 0.0, 0.0, 0, 0, 0, 0, reason, conv)
    shape = tuple(view4(weight).shape if weight.dim() in (2, 4) else weight.shape)
    row = LayerSparsity.dense(name, shape, reason, conv)
    if id(weight) in seen:  # shared: counted where it came first
        return dataclasses.replace(row, kept_kernels=0, kernels=0, kept_weights=0, weights=0)
    seen.add(id(weight))
    return row
