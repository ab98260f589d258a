"""Kernels: every module in this folder that names one registers it."""

import importlib

from campfire.kernels.base import KERNELS, Conv, Kernel, Prepared

__all__ = ["KERNELS", "Conv", "Kernel", "Prepared"]

for _name in ("blocks", "reference"):
    importlib.import_module(f"{__name__}.{_name}")
