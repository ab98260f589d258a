"""Checkpoints: written whole or not at all, read without running anything (``weights_only=True``)."""

import json
import os
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from campfire.config import Config, from_tree, merge
from campfire.errors import CheckpointError
from campfire.files.dense import write_dense
from campfire.files.filling import fill
from campfire.files.foreign import read_any, weights
from campfire.files.writing import replacing

__all__ = ["FORMAT", "config_of", "fill", "load", "rng_state", "save", "save_weights", "set_rng_state", "weights"]

FORMAT = "campfire-checkpoint-1"


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint; whoever reads ``path`` meanwhile, or after a crash, sees the previous one.

    Raises:
        OSError: the disk is full, or the folder may not be written to.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # torch's own, from closing what it could not write
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def load(path: Path) -> dict[str, Any]:
    """Read what `save` wrote, on the CPU.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it is truncated, damaged, or something else.
    """
    state = read_any(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path} is no checkpoint of a campfire run ({FORMAT}); weights alone go to --pretrained")
    _require_undamaged(path)
    return state


def _require_undamaged(path: Path) -> None:
    """Compare the checksums that `torch.save` wrote: `torch.load` does not, and takes flipped bits for weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        damaged = str(error)
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged: its checksums do not hold ({damaged})")


def config_of(state: Mapping[str, Any], path: str | Path) -> Config:
    """The configuration in a checkpoint.

    Raises:
        CheckpointError: there is none, or not one of this version.
    """
    try:
        return merge([from_tree(json.loads(state["config"]), str(path))])[0]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the configuration in {path} cannot be read: {error}") from None


def save_weights(path: Path, model: nn.Module) -> None:
    """The model's state dict as .safetensors, with the zeros, readable by whoever the umask lets."""
    write_dense(path, model.state_dict())


def rng_state() -> dict[str, Any]:
    """Where every generator stands, as tensors and plain values."""
    name, keys, *rest = cast(tuple[Any, ...], np.random.get_state())
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), *map(float, rest)),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to where `rng_state` found them."""
    random.setstate(state["python"])
    name, keys, position, gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), int(position), int(gauss), cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
