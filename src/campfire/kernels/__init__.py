"""Kernels: every module listed here registers one."""

import importlib

import torch

from campfire.kernels.base import KERNELS, Conv, Kernel, Prepared
from campfire.packed import Packed

__all__ = ["KERNELS", "Conv", "Kernel", "Prepared", "serving"]

_NAMES = (
    "reference",
    "compact",
    "lanes.kernel",
    "codegen.kernel",
    "blocks.kernel",
    "blocks.bf16",
    "blocks.amx",
    "gpu.two_four",
    "gpu.kernel",
)
for _name in _NAMES:  # the last that can serve, serves
    importlib.import_module(f"{__name__}.{_name}")


def serving(packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> Kernel:
    """The kernel that serves a layer: the most special one that can."""
    return next(k for k in reversed(KERNELS.values()) if not k.why_not(packed, conv, dtype, device))
