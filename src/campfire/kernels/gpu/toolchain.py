"""Triton, where there is one: asked for when a GPU wants kernels, never needed to import, build or run elsewhere."""

import importlib.metadata
import os

import torch

from campfire.native.gpu.trouble import has_triton, tell, trouble
from campfire.native.loading import mode

OLDEST = (8, 0)  # compute capability: tensor cores that take bfloat16 and TF32


def version() -> str:
    """Of Triton; "" where there is none.

    >>> version() == "" or version().startswith("triton ")
    True
    """
    return f"triton {importlib.metadata.version('triton')}" if has_triton() else ""


def interpreted() -> bool:
    """Whether kernels run on the CPU, by Triton's interpreter (``TRITON_INTERPRET=1``, set before triton is imported)."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on") and has_triton()


def runs_on(device: torch.device) -> bool:
    """Whether kernels can read tensors of a device: those of a GPU, and those of a CPU under the interpreter."""
    return device.type == ("cpu" if interpreted() else "cuda")


def why_not_on(device: torch.device) -> list[str]:
    """Reasons why Triton's kernels cannot run on a device; [] when they can. What is wrong with Triton is told once."""
    if device.type != "cuda":
        return [f"it runs on a GPU; got {device.type}"]
    if mode() == "0":
        return ["native code is off (CAMPFIRE_NATIVE=0)"]
    if not torch.cuda.is_available():
        return ["no CUDA device is there"]
    if (have := torch.cuda.get_device_capability(device)) < OLDEST:
        return [f"compute capability {OLDEST[0]}.{OLDEST[1]} or more is wanted; this GPU has {have[0]}.{have[1]}"]
    if reason := trouble(device.index or 0):
        tell("blocks", reason)
        return [reason]
    return []
