"""compress_: the survivors' values become the Parameters."""

import dataclasses
import math
from collections.abc import Iterable

from torch import nn
from torch.optim import Optimizer

from campfire.compress.following import follow, keep_masked
from campfire.compress.loading import guard
from campfire.compress.optimizers import as_list, carry, holds, nbytes, require_carriable
from campfire.compress.places import put, require_unwrapped, tied, why_not_replace
from campfire.compress.recording import Example
from campfire.compress.report import LayerReport, Report
from campfire.compress.tuning import tune_
from campfire.errors import DoesNotFit, UnknownName, UsageError
from campfire.kernels import KERNELS
from campfire.mask import Mask
from campfire.nn import SparseConv2d, SparseLinear
from campfire.nn.base import SparseLayer
from campfire.packed import LAYOUTS
from campfire.packed.tile import largest_tile
from campfire.pruner import Pruner
from campfire.pruner.layer import PrunedLayer

VECTOR = 16  # outputs side by side that a vector unit works on


def compress_(
    model: nn.Module,
    pruner: Pruner,
    optimizer: Optimizer | Iterable[Optimizer] | None = None,
    layout: str | None = None,
    kernel: str = "auto",
    example: Example | None = None,
) -> Report:
    """Replace every masked layer by a sparse one whose Parameter is the survivors, once the masks are frozen.

    Training goes on as it was: the values take the weight's place in its parameter group, with their share of its
    gradient and of all optimizer state of its shape. The model's state dict stays the dense one; one that is not zero
    where nothing lives is refused (`CheckpointError`), and then nothing is loaded. A layer that has no sparse form stays
    dense, for a reason that the report gives; its masks are kept true as before. Nothing happens to layers that are
    compressed already. Sparse layers return images channels last: a model that flattens them by ``view`` needs
    ``flatten`` or ``reshape`` there, as it does under ``memory_format=torch.channels_last``. Lists of parameters that
    were made before are stale, and so is an average of the model (``AveragedModel``), which is one of dense weights:
    make it anew from the compressed model.

    Args:
        model: the model itself, the one the pruner was made for; wrap it (DDP, ``torch.compile``) afterwards.
        optimizer: the one that holds the weights, or several; by default those to which the pruner is attached.
        layout: a name in `campfire.packed.LAYOUTS`; by default ``unit`` where 16 outputs or more keep the same
            weights, ``grouped`` where the structure orders the outputs, else ``csr``.
        kernel: as for `campfire.SparseConv2d`.
        example: a batch as the model will train on: the kernels are then chosen for it (`campfire.tune_`), and the
            report has the plan.

    Raises:
        UsageError: masks still change; the model is wrapped, or another one; the pruner is attached to an optimizer that
            was not given, or the one given holds none of the weights. Nothing has changed then. With ``example`` also where
            the compressed model does not run on it; it is compressed then.
        DoesNotFit: an optimizer that does not step each weight by itself.
        UnknownName: no such layout or kernel.

    >>> import torch
    >>> from campfire import OneShot
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(256, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> pruner = Pruner(model, "ck", OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    >>> def step():
    ...     optimizer.zero_grad()
    ...     model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    ...     _ = optimizer.step()
    >>> step()
    >>> compress_(model, pruner, optimizer).compressed, model[2].value.numel(), model[2].weight.shape
    (['2'], 576, torch.Size([16, 8, 3, 3]))
    >>> step()
    """
    optimizers = _require(model, pruner, optimizer, layout, kernel)
    attached = pruner._binding is not None
    pruner.detach()
    rows = [_compress(model, layer, optimizers, layout, kernel) for layer in pruner.layers.values()]
    if attached:
        keep_masked(pruner, optimizers)
    report = Report(rows, held=bool(optimizers))
    if report.compressed:
        guard(model)
    if example is None or not report.compressed:
        return report
    plan = tune_(model, example)
    layers = {layer.target.name: layer.target.module for layer in pruner.layers.values()}
    return dataclasses.replace(report, layers=[_renamed(row, layers[row.name]) for row in rows], plan=plan)


def _require(
    model: nn.Module,
    pruner: Pruner,
    optimizer: Optimizer | Iterable[Optimizer] | None,
    layout: str | None,
    kernel: str,
) -> list[Optimizer]:
    """The optimizers, if nothing forbids to compress."""
    require_unwrapped(model, "compress")
    if pruner.model is not model:
        raise UsageError("the pruner was made for another model; give the model that it prunes")
    if not pruner.frozen:
        raise UsageError(f"masks still change: {pruner.standing}; compress after it")
    if layout is not None and layout not in LAYOUTS:
        raise UnknownName("layout", layout, LAYOUTS)
    if kernel not in ("auto", *KERNELS):
        raise UnknownName("kernel", kernel, ["auto", *KERNELS])
    bound = [] if pruner._binding is None else pruner._binding.optimizers
    optimizers = as_list(bound if optimizer is None else optimizer)
    if any(b not in optimizers for b in bound):
        raise UsageError("the pruner is attached to an optimizer that was not given; give all it is attached to")
    weights = [x.weight for x in pruner.layers.values() if isinstance(x.weight, nn.Parameter)]
    if optimizers and weights and not any(holds(o, weights) for o in optimizers):
        raise UsageError("the optimizer holds none of the pruned weights; give the one that trains this model")
    require_carriable(optimizers, weights)
    return optimizers


def _compress(
    model: nn.Module, layer: PrunedLayer, optimizers: list[Optimizer], layout: str | None, kernel: str
) -> LayerReport:
    module, old = layer.target.module, layer.target.module._parameters.get("weight")
    if isinstance(module, SparseLayer):
        return _row(layer, module, optimizers, already=True)
    reasons = ["nothing in it is dead"] if layer.mask is None else why_dense(model, module)
    if not reasons and layer.mask is not None:
        try:
            sparse = sparse_of(module, layer.mask, layout or best_layout(layer.mask), kernel)
        except DoesNotFit as error:
            reasons = error.reasons
        else:
            before = nbytes(optimizers, module.weight)
            carry(optimizers, module.weight, sparse.value, sparse.gather)
            put(model, module, sparse)
            follow(layer, sparse)
            return _row(layer, sparse, optimizers, before=before)
    size = nbytes(optimizers, old) if old is not None else 0
    weights = math.prod(layer.target.shape)
    return LayerReport(
        layer.target.name, layer.target.shape, weights, layer.kept, before=size, after=size, reason="; ".join(reasons)
    )


def why_dense(model: nn.Module, module: nn.Module) -> list[str]:
    """Reasons why a layer of a model cannot become a sparse one; [] when it can."""
    if type(module) not in (nn.Conv2d, nn.Linear):
        return [f"it is a {type(module).__name__}, which may compute something else than its base"]
    weight = module._parameters.get("weight")
    if type(weight) is not nn.Parameter:
        return [f"its weight is no plain Parameter but a {type(weight).__name__}"]
    if id(weight) in tied(model):
        return ["its weight is shared (tied) with another layer"]
    return why_not_replace(model, module)


def sparse_of(module: nn.Conv2d | nn.Linear, mask: Mask, layout: str, kernel: str = "auto") -> SparseLayer:
    """The sparse layer of a dense one, which trains, or not, as that did.

    Raises:
        DoesNotFit: the layout cannot hold the mask, or the layer has no sparse form; with every reason.
    """
    sparse = (
        SparseLinear.of(module, mask, layout, kernel)
        if isinstance(module, nn.Linear)
        else SparseConv2d.of(module, mask, layout, kernel)
    )
    sparse.value.requires_grad_(module.weight.requires_grad)
    return sparse.train(module.training)


def _renamed(row: LayerReport, layer: nn.Module) -> LayerReport:
    """With the kernels that it has now."""
    return dataclasses.replace(row, kernel=str(layer.choice())) if isinstance(layer, SparseLayer) else row


def best_layout(mask: Mask) -> str:
    """The layout that the fastest kernels read, of those that hold the mask."""
    if largest_tile(mask.keep)[0] >= VECTOR:
        return "unit"
    return "grouped" if "order" in mask.plan and not LAYOUTS["grouped"].why_not(mask) else "csr"


def _row(
    layer: PrunedLayer,
    sparse: SparseLayer,
    optimizers: list[Optimizer],
    before: int | None = None,
    already: bool = False,
) -> LayerReport:
    after = nbytes(optimizers, sparse.value)
    return LayerReport(
        layer.target.name,
        layer.target.shape,
        math.prod(layer.target.shape),
        layer.kept,
        layout=sparse.layout,
        kernel=str(sparse.choice()),
        before=after if before is None else before,
        after=after,
        indices=indices_of(sparse),
        already=already,
    )


def indices_of(sparse: SparseLayer) -> int:
    """Bytes that say where the values belong."""
    return sum(part.numel() * part.element_size() for part in sparse.index.values())
