"""Packed layouts: every module in this folder that names one registers it."""

import importlib
import pkgutil

from campfire.packed.base import LAYOUTS, Layout, Packed, pack

__all__ = ["LAYOUTS", "Layout", "Packed", "pack"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
