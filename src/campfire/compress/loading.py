"""A dense state dict that does not fit a compressed model is refused before any of it is loaded."""

from typing import Any

from torch import nn

from campfire.errors import CheckpointError
from campfire.nn.base import SparseLayer


def guard(model: nn.Module) -> None:
    """Let the model look at a whole state dict before its layers load their parts."""
    if not _guards(model):
        model.register_load_state_dict_pre_hook(refuse_strays)


def unguard(model: nn.Module) -> None:
    """The opposite of `guard`."""
    for key in _guards(model):
        del model._load_state_dict_pre_hooks[key]


def refuse_strays(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Raise `CheckpointError` with every layer whose weight is not zero where nothing lives, or of another shape."""
    wrong = []
    for name, layer in module.named_modules(prefix=prefix.removesuffix(".")):
        key = f"{name}.weight"
        if isinstance(layer, SparseLayer) and key in state_dict and (reason := layer.why_not_load(state_dict[key])):
            wrong.append(f"\n  - {key}: {reason}")
    if wrong:
        raise CheckpointError(f"the weights do not fit this compressed model; nothing was loaded:{''.join(wrong)}")


def _guards(model: nn.Module) -> list[int]:
    hooks = model._load_state_dict_pre_hooks.items()
    return [key for key, wrapped in hooks if getattr(wrapped, "hook", None) is refuse_strays]
