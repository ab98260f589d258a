"""A state dict into a model that it must fit exactly; and a file into a model, packed if wanted."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from campfire.compress.compressing import best_layout, indices_of, sparse_of, why_dense
from campfire.compress.loading import guard
from campfire.compress.optimizers import nbytes
from campfire.compress.places import put, require_unwrapped
from campfire.compress.report import LayerReport, Report
from campfire.errors import CheckpointError, DoesNotFit
from campfire.files.loading import read
from campfire.mask import Mask
from campfire.nn.base import SparseLayer


def fill(model: nn.Module, state: Mapping[str, Tensor], origin: str) -> None:
    """Load a state dict that must fit exactly.

    Raises:
        CheckpointError: what is missing, too much, or of another shape.
    """
    own = model.state_dict()
    wrong = [f"{n}: missing" for n in own if n not in state] + [
        f"{n}: not in this model" for n in state if n not in own
    ]
    for name, tensor in state.items():
        if name in own and tensor.shape != own[name].shape:
            wrong.append(f"{name}: {list(tensor.shape)} in the file, {list(own[name].shape)} in this model")
    if wrong:
        more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"the weights in {origin} are of another model: {'; '.join(wrong[:5])}{more}")
    model.load_state_dict(dict(state))


def load_(model: nn.Module, path: str | Path, sparse: bool = True, limit: int | None = None) -> Report:
    """Fill a model out of a file, and put sparse layers in the place of those whose weights were packed.

    Layers keep their places, biases and state-dict names; the values become Parameters, so make the optimizer afterwards.

    Args:
        model: any model of the same state dict, without DDP or ``torch.compile`` around it.
        sparse: leave all layers dense where False.
        limit: as for `load`.

    Returns:
        which layers are sparse now, and why others are not.

    Raises:
        UsageError: there is no such file, or the model is wrapped.
        CheckpointError: as for `load`; or names or shapes are not the model's. The model is unchanged then.

    >>> import tempfile, torch
    >>> from campfire.files import save
    >>> model = nn.Sequential(nn.Linear(64, 32))
    >>> with torch.no_grad():
    ...     model[0].weight[:, ::2] = 0
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/x.campfire", model)
    ...     other = nn.Sequential(nn.Linear(64, 32))
    ...     load_(other, f"{folder}/x.campfire").compressed
    ['0']
    >>> torch.equal(other[0].weight, model[0].weight), other[0].value.numel()
    (True, 1024)
    """
    require_unwrapped(model, "load into")
    loaded = read(path, limit)
    fill(model, loaded.state, str(path))
    rows = [_row(model, name, mask) for name, mask in loaded.masks.items()] if sparse else []
    if any(row.layout for row in rows):
        guard(model)
    return Report(rows, held=False)


def _row(model: nn.Module, name: str, mask: Mask) -> LayerReport:
    layer, _, part = name.rpartition(".")
    module = model.get_submodule(layer)
    if part != "weight":
        reason = f"it is {part!r} of a {type(module).__name__}, which has no sparse form"
        return LayerReport(
            name, tuple(mask.keep.shape), mask.keep.numel(), int(mask.keep.count_nonzero()), reason=reason
        )
    row = LayerReport(layer, tuple(mask.keep.shape), mask.keep.numel(), int(mask.keep.count_nonzero()))
    if isinstance(module, SparseLayer):
        return dataclasses.replace(row, layout=module.layout, kernel=str(module.choice()), already=True)
    reasons = why_dense(model, module)
    if not row.kept:
        reasons = [*reasons, "nothing in it lives, so it could learn nothing"]
    if isinstance(module, nn.Conv2d | nn.Linear) and not reasons:
        on = module.weight.device
        mask = Mask(mask.keep.to(on), {part: tensor.to(on) for part, tensor in mask.plan.items()})
        try:
            sparse = sparse_of(module, mask, best_layout(mask))
        except DoesNotFit as error:
            reasons = error.reasons
        else:
            put(model, module, sparse)
            sizes = {
                "before": nbytes([], module.weight),
                "after": nbytes([], sparse.value),
                "indices": indices_of(sparse),
            }
            return dataclasses.replace(row, layout=sparse.layout, kernel=str(sparse.choice()), **sizes)
    return dataclasses.replace(row, reason="; ".join(reasons))
