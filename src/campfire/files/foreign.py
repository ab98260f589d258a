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
from campfire.files.loading import from_bytes
from campfire.mask import Mask, view4

WRAPPERS = ("ema", "model_ema", "state_dict_ema", "model", "model_state_dict", "state_dict", "net")
PREFIXES = ("module.", "_orig_mod.")  # of DDP, and of torch.compile


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
        CheckpointError: it holds no state dict.
    """
    state = read_any(path)
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        raise CheckpointError(f"{path} holds no state dict of tensors")
    return dict(state)


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

    What all names begin with under DDP or `torch.compile` goes, too.

    Raises:
        CheckpointError: a mask without a weight, of another shape, or with other numbers than 0 and 1.

    >>> state, masks = unmasked({"fc.weight_orig": torch.ones(1, 2), "fc.weight_mask": torch.tensor([[1.0, 0.0]])})
    >>> state, masks["fc.weight"].sparsity
    ({'fc.weight': tensor([[1., 0.]])}, 0.5)
    """
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
