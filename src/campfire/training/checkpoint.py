"""Checkpoints: written whole or not at all, read without running anything (``weights_only=True``)."""

import json
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from campfire.config import Config, from_tree, merge
from campfire.errors import CheckpointError, UsageError
from campfire.training.run_directory import replacing

FORMAT = "campfire-checkpoint-1"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whoever reads ``path`` meanwhile, or after a crash, sees the previous one."""
    with replacing(path) as temporary, open(temporary, "wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, on the CPU.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it is truncated, or something else.
    """
    state = _read(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of a campfire run ({FORMAT}); weights alone go to --pretrained")
    return state


def weights(path: Path) -> dict[str, Tensor]:
    """A model's state dict: from .safetensors, from a checkpoint, or from a .pt file that holds one.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it holds no state dict.
    """
    state = _read(path)
    for key in ("ema", "model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()) or not state:
        raise CheckpointError(f"{path} holds no state dict of tensors")
    return dict(state)


def config_of(state: Mapping[str, Any], path: str | Path) -> Config:
    """The configuration in a checkpoint.

    Raises:
        CheckpointError: there is none, or not one of this version.
    """
    try:
        return merge([from_tree(json.loads(state["config"]), str(path))])[0]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the configuration in {path} cannot be read: {error}") from None


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises anything at all on a file that is not one of its own
        line = str(error).strip().partition("\n")[0]
        raise CheckpointError(
            f"cannot read {path}: truncated, or no checkpoint ({type(error).__name__}: {line})"
        ) from None


def save_weights(path: Path, model: nn.Module) -> None:
    """The model's state dict as .safetensors, with the zeros, readable by whoever the umask lets."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # safetensors writes 0600


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


def rng_state() -> dict[str, Any]:
    """Where every generator stands, as tensors and plain values."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *map(float, rest)),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_available() else {})


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to where `rng_state` found them."""
    random.setstate(state["python"])
    name, keys, position, gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), int(position), int(gauss), cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
