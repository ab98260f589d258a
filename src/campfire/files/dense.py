"""Ordinary dense checkpoints."""

import io
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from campfire.files.writing import write_whole


def write_dense(path: Path, state: Mapping[str, Tensor]) -> int:
    """Write a state dict with its zeros as .safetensors, or by `torch.save`; returns the bytes.

    Raises:
        UsageError: the path cannot be a file.
        OSError: the file cannot be written.
    """
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    if path.suffix == ".safetensors":
        data = safetensors.torch.save(own)
    else:
        buffer = io.BytesIO()
        torch.save(own, buffer)
        data = buffer.getvalue()
    write_whole(path, data)
    return len(data)
