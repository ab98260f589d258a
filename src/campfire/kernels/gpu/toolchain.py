"""Triton, where there is one: asked for when a GPU wants kernels, never needed to import, build or run elsewhere."""

import functools
import importlib.metadata
import importlib.util
import os

import torch

from campfire.native.loading import mode, warn_once

OLDEST = (8, 0)  # compute capability: tensor cores that take bfloat16 and TF32


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed; it is not imported."""
    return importlib.util.find_spec("triton") is not None


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
        failed(reason)
        return [reason]
    return []


def failed(reason: str) -> None:
    """One warning that the dense library runs instead, and why."""
    warn_once("gpu-kernels", f"no GPU kernels, the dense library does their work: {reason}")


@functools.cache
def trouble(index: int) -> str:
    """Why Triton does not work on this GPU: the smallest kernel is compiled and run; "" where that went well."""
    if not has_triton():
        return "Triton is not installed"
    try:
        from campfire.kernels.gpu.probe import probe

        probe(torch.device("cuda", index))
    except Exception as error:
        return f"Triton fails here: {cause(error)}"
    return ""


def cause(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
