"""What keeps Triton from working on a GPU: asked once, told once, whoever wants it, masks or blocks."""

import functools
import importlib.util

from campfire.native.compilers import BuildFailed
from campfire.native.loading import mode, warn_once

_told: set[str] = set()


@functools.cache
def has_triton() -> bool:
    """Whether Triton is installed; it is not imported."""
    return importlib.util.find_spec("triton") is not None


@functools.cache
def trouble(index: int) -> str:
    """Why Triton does not work on this GPU: the smallest kernel is compiled and run; "" where that went well."""
    if not has_triton():
        return "Triton is not installed"
    try:
        import torch

        from campfire.native.gpu.probe import probe

        probe(torch.device("cuda", index))
    except Exception as error:
        return f"Triton fails here: {cause(error)}"
    return ""


def cause(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def tell(what: str, reason: str) -> None:
    """One warning for each of ``masks`` and ``blocks``, and for a reason that both have in common one in all.

    Raises:
        BuildFailed: ``CAMPFIRE_NATIVE=require``.
    """
    if mode() == "require":
        raise BuildFailed(f"CAMPFIRE_NATIVE=require, and the {what} of a GPU have no kernels: {reason}")
    if reason not in _told:
        _told.add(reason)
        warn_once(f"triton {what}", f"no GPU kernels, torch and the dense library do their work, slower: {reason}")
