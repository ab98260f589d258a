"""Copies of models, and why torch refuses to make one."""

import copy

from torch import Tensor, nn

from campfire.errors import UsageError


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        UsageError: a module holds a tensor that was computed with gradients; as ``torch.nn.utils.prune`` and the old
            ``weight_norm`` leave it after a forward pass; which, and the cure.

    >>> from torch.nn.utils import prune
    >>> layer = prune.l1_unstructured(nn.Linear(4, 2), "weight", 0.5)
    >>> copied(layer)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    campfire.errors.UsageError: Linear cannot be copied: it holds weight, computed with gradients...
    """
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        if "created explicitly by the user" not in str(error):
            raise
        found = _computed(model) or ["a tensor"]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise UsageError(
            f"{type(model).__name__} cannot be copied: it holds {found[0]}{more}, computed with gradients, which torch does "
            "not copy. Wanted: parameters and buffers alone. Cure: make weights permanent with "
            "torch.nn.utils.prune.remove(layer, 'weight') or torch.nn.utils.remove_weight_norm(layer), or run the model once "
            "under torch.no_grad(), which computes them anew without gradients."
        ) from error


def _computed(model: nn.Module) -> list[str]:
    """Tensors with a gradient's history that modules hold as attributes or buffers, by name."""
    held = [
        (f"{path}.{name}" if path else name, value)
        for path, module in model.named_modules()
        for name, value in (*vars(module).items(), *module._buffers.items())
    ]
    return [name for name, value in held if isinstance(value, Tensor) and not value.is_leaf]
