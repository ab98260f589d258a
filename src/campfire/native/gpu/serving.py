"""Whether Triton can serve a tensor; what fails there is told once, and torch does the work from then on."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from campfire.native.compilers import BuildFailed
from campfire.native.loading import mode, warn_once

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
R = TypeVar("R")
DEVICES = {"cuda"}
_failed: list[str] = []


def serves(device: "torch.device") -> bool:
    """Whether kernels may be tried on this device (``CAMPFIRE_NATIVE=0``: never)."""
    import torch

    return device.type in DEVICES and not _failed and mode() != "0" and not torch.compiler.is_compiling()


def or_none(work: Callable[P, R]) -> Callable[P, R | None]:
    """The same, but None where Triton is missing or fails: one warning then, and no other try in this process.

    Raises:
        BuildFailed: it fails, and ``CAMPFIRE_NATIVE=require``.
        torch.OutOfMemoryError: the device has no memory left.
    """

    @functools.wraps(work)
    def tried(*args: P.args, **kwargs: P.kwargs) -> R | None:
        import torch

        try:
            return work(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            _fail(f"{type(error).__name__}: {error}")
            return None

    return tried


def _fail(reason: str) -> None:
    if mode() == "require":
        raise BuildFailed(f"CAMPFIRE_NATIVE=require, and the mask kernels for GPUs fail: {reason}")
    _failed.append(reason)
    warn_once("triton", f"no Triton kernels for masks, torch does their work, slower: {reason}")
