"""decompress_: the ordinary dense model again."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from campfire.compress.following import follow
from campfire.compress.loading import unguard
from campfire.compress.optimizers import as_list, carry, require_carriable
from campfire.compress.places import put, require_unwrapped, why_not_replace
from campfire.errors import DoesNotFit
from campfire.nn import SparseConv2d, SparseLinear, library_layers_
from campfire.nn.base import SparseLayer
from campfire.nn.entrances import close_
from campfire.pruner import Pruner


def decompress_(
    model: nn.Module, optimizer: Optimizer | Iterable[Optimizer] | None = None, pruner: Pruner | None = None
) -> list[str]:
    """Put ordinary dense layers in the place of sparse ones; returns their names.

    Batch normalisation and pooling that were exchanged to keep a memory format are the library's again.
    Weights are equal bit for bit; gradients and optimizer state are zero where nothing lives. Dead weights stay zero in
    further training only under a pruner: give it, and attach it again.

    Args:
        model: the model itself, without DDP or ``torch.compile`` around it.
        optimizer: the one that holds the values, or several; without it the dense weights are in none.
        pruner: the one that compressed the model.

    Raises:
        UsageError: the model is wrapped.
        DoesNotFit: a sparse layer has hooks, or is the whole model; or an optimizer that mixes weights. Nothing has
            changed then.

    >>> from campfire.mask import Mask
    >>> import torch
    >>> dense = nn.Linear(4, 4)
    >>> model = nn.Sequential(SparseLinear.of(dense, Mask(torch.eye(4).bool()[:, :, None, None])))
    >>> decompress_(model), model, torch.equal(model[0].weight, dense.weight * torch.eye(4))
    (['0'], Sequential(
      (0): Linear(in_features=4, out_features=4, bias=True)
    ), True)
    """
    require_unwrapped(model, "decompress")
    optimizers = as_list(optimizer)
    found = [(n, m) for n, m in model.named_modules() if isinstance(m, (SparseConv2d, SparseLinear))]
    for name, sparse in found:
        if reasons := why_not_replace(model, sparse):
            raise DoesNotFit("decompress_", f"layer {name!r}", reasons)
    require_carriable(optimizers, [sparse.value for _, sparse in found])
    owners = {} if pruner is None else {id(x.target.module): x for x in pruner.layers.values()}
    for _, sparse in found:
        dense = sparse.dense()
        carry(optimizers, sparse.value, dense.weight, sparse.scatter)
        put(model, sparse, dense)
        if (layer := owners.get(id(sparse))) is not None:
            follow(layer, dense)
    unguard(model)
    if found:
        library_layers_(model)
        close_(model)
    return [name for name, _ in found]


def dense_optimizer_state(model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's state dict as it would be if the model were dense; nothing changes in either.

    >>> import torch
    >>> from campfire.mask import Mask
    >>> model = nn.Sequential(SparseLinear.of(nn.Linear(4, 4), Mask(torch.eye(4).bool()[:, :, None, None])))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> model(torch.ones(1, 4)).sum().backward()
    >>> optimizer.step()
    >>> dense_optimizer_state(model, optimizer)["state"][0]["momentum_buffer"].diagonal()
    tensor([1., 1., 1., 1.])
    """
    saved = optimizer.state_dict()
    layers = {id(m.value): m for m in model.modules() if isinstance(m, SparseLayer)}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state = {
        i: _dense(s, layers[id(p)])
        for i, p in enumerate(parameters)
        if id(p) in layers and (s := saved["state"].get(i))
    }
    return {**saved, "state": {**saved["state"], **state}}


def _dense(state: dict[str, Any], layer: SparseLayer) -> dict[str, Any]:
    shape = layer.value.shape
    return {k: layer.scatter(v) if isinstance(v, Tensor) and v.shape == shape else v for k, v in state.items()}
