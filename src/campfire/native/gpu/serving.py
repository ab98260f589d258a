"""Whether Triton can serve a tensor; what fails there is told once, and torch does the work from then on."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from campfire.native.gpu.trouble import cause, tell, trouble
from campfire.native.loading import mode

if TYPE_CHECKING:
    import torch

P = ParamSpec("P")
R = TypeVar("R")
DEVICES = {"cuda"}
_failed: list[str] = []


def serves(device: "torch.device") -> bool:
    """Whether kernels may be tried on this device (``CAMPFIRE_NATIVE=0``: never)."""
    import torch

    if device.type not in DEVICES or _failed or mode() == "0" or torch.compiler.is_compiling():
        return False
    if device.type == "cuda" and (reason := trouble(device.index or 0)):
        _fail(reason)
    return not _failed


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
            _fail(cause(error))
            return None

    return tried


def _fail(reason: str) -> None:
    tell("masks", reason)
    _failed.append(reason)
