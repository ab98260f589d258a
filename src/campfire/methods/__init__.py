"""Methods: every module in this folder that names one registers it; adding a method is adding a file."""

import importlib
import pkgutil

from campfire.methods.base import REGISTRY, Host, Method
from campfire.spelling import read

__all__ = ["REGISTRY", "Host", "Method", "named"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def named(spec: str) -> Method:
    """A method from its spelling.

    >>> named("iterative:threshold=0.5")
    Iterative(threshold=0.5, step=0.25)
    """
    return read("method", spec, REGISTRY)
