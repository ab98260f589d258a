"""Checkpoints of other programs, and our own dense ones: state dicts, with the masks that they hold."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from campfire.errors import CheckpointError, UsageError
from campfire.files.about import KEY
from campfire.files.loading import EXPANSION, HARMLESS, from_bytes
from campfire.mask import Mask, view4

WRAPPERS = ("ema", "model_ema", "state_dict_ema", "model", "model_state_dict", "state_dict", "net")
PREFIXES = ("module.", "_orig_mod.")  # of DDP and torch.optim.swa_utils, and of torch.compile
COUNTER = "n_averaged"  # of torch.optim.swa_utils


def read_any(path: Path) -> Any:
    """What a .safetensors file, a packed one, or a .pt file holds; nothing in it is run.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it is truncated, or something else.
    """
    if not path.is_file():
        raise UsageError(f"{path} is a folder; give a file" if path.is_dir() else f"there is no file {path}")
    if is_packed(path):
        try:
            return from_bytes(path.read_bytes()).state
        except CheckpointError as error:
            raise CheckpointError(f"cannot read {path}: {error}") from None
    try:
        if _is_safetensors(path):
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises anything at all on a file that is not one of its own
        if found := re.search(r"Unsupported (?:global|class).*?([\w.]+) was not an allowed", str(error)):
            raise CheckpointError(
                f"cannot read {path}: it holds an object of {found[1]}, which only its program can make, and no file is run "
                "here; save the weights alone there: torch.save(model.state_dict(), FILE)"
            ) from None
        pickled = isinstance(error, pickle.UnpicklingError)  # torch then advises to run the file
        line = "no pickle of tensors" if pickled else str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"cannot read {path}: truncated, or no checkpoint ({type(error).__name__}: {line})"
        ) from None


def weights(path: Path) -> dict[str, Tensor]:
    """A model's dense state dict: from .safetensors, a packed file, a checkpoint, or a .pt file that holds one.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it holds no state dict, or one of tensors that are sparse, quantised, or larger than the file by far.
    """
    held = read_any(path)
    if (state := _state_in(held)) is None:
        raise CheckpointError(
            f"{path} holds no state dict of tensors, but {_told(held)}; wanted: one, alone or under {', '.join(WRAPPERS)}; "
            "write it there by torch.save(model.state_dict(), FILE)"
        )
    _require_plain(state, path)
    return state


def _state_in(held: Any, depth: int = 2) -> dict[str, Tensor] | None:
    """The state dict that an object is, or that it holds under the name of a wrapper."""
    if not isinstance(held, Mapping) or not held:
        return None
    if all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in held.items()):
        return dict(held)
    inside = (_state_in(held.get(key), depth - 1) for key in WRAPPERS if depth)
    return next((state for state in inside if state is not None), None)


def _told(held: Any) -> str:
    """What an object is instead of a state dict."""
    if not isinstance(held, Mapping):
        return f"an object of type {type(held).__name__}"
    if not held:
        return "an empty dictionary"
    others = [f"{name!r} ({type(x).__name__})" for name, x in held.items() if not isinstance(x, Tensor)]
    named = others or [f"{name!r}, which is no name" for name in held if not isinstance(name, str)]
    return ", ".join(named[:3]) + f" and {len(named) - 3} more" * (len(named) > 3)


def _require_plain(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise `CheckpointError` for tensors that have no memory of their own, one number after another."""
    for name, x in state.items():
        if x.layout != torch.strided or x.is_quantized or x.device.type != "cpu":
            kind = "quantised" if x.is_quantized else f"{x.layout} on {x.device.type}".removeprefix("torch.")
            cure = "make it an ordinary one there: dequantize(), to_dense()"
            raise CheckpointError(f"{path}: {name!r} is no ordinary tensor, but {kind}; {cure}")
    room, limit = sum(x.numel() * x.element_size() for x in state.values()), max(EXPANSION * _size(path), HARMLESS)
    if room > limit:
        raise CheckpointError(
            f"{path} is {_size(path):,} bytes, and its tensors would take {room:,}: they are views that repeat a few numbers; "
            "save copies: {name: tensor.clone() for name, tensor in state_dict.items()}"
        )


def _size(path: Path) -> int:
    return path.stat().st_size


def is_packed(path: Path) -> bool:
    """Whether a file is one of `campfire.save`, or was once."""
    if path.suffix == ".campfire":
        return True
    if not _is_safetensors(path):
        return False
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = file.read(min(size, 2**16))
    return f'"{KEY}":'.encode() in head


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        return path.suffix == ".safetensors" or file.read(10)[8:10] == b'{"'


def unmasked(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Mask]]:
    """A state dict without the doubles of `torch.nn.utils.prune` (NAME_orig and NAME_mask), and the masks by NAME.

    What all names begin with under DDP, `torch.compile` or an `AveragedModel` goes, too, and that one's counter.

    Raises:
        CheckpointError: a mask without a weight, of another shape, or with other numbers than 0 and 1.

    >>> state, masks = unmasked({"fc.weight_orig": torch.ones(1, 2), "fc.weight_mask": torch.tensor([[1.0, 0.0]])})
    >>> state, masks["fc.weight"].sparsity
    ({'fc.weight': tensor([[1., 0.]])}, 0.5)
    """
    if COUNTER in state and all(name.startswith(PREFIXES[0]) for name in state if name != COUNTER):
        state = {name: tensor for name, tensor in state.items() if name != COUNTER}
    while state and (prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None)):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    found, masks = {}, {}
    for name, tensor in state.items():
        stem, _, kind = name.rpartition("_")
        if kind == "mask" and f"{stem}_orig" in state:
            continue
        if kind != "orig" or f"{stem}_mask" not in state:
            found[name] = tensor
            continue
        keep = _keep(stem, tensor, state[f"{stem}_mask"])
        if stem in state:
            raise CheckpointError(f"{stem} is there beside {name}: they say different things of one weight")
        found[stem] = tensor.masked_fill(~keep, 0)
        if tensor.dim() in (2, 4) and not keep.all():
            masks[stem] = Mask(view4(keep))
    return found, masks


def _keep(stem: str, weight: Tensor, mask: Tensor) -> Tensor:
    if mask.shape != weight.shape:
        raise CheckpointError(f"{stem}_mask is {list(mask.shape)}, and {stem}_orig {list(weight.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise CheckpointError(f"{stem}_mask holds other numbers than 0 and 1")
    return mask != 0
