"""Packages that only some commands need: imported where used, with the cure where missing (floor 0)."""

from importlib import import_module
from typing import Any

from campfire.errors import CampfireError


def need(
    who: str, extra: str, *modules: str, instead: str = "", error: type[CampfireError] = CampfireError
) -> list[Any]:
    """Import what ``who`` needs of an extra of campfire's.

    Args:
        instead: what to do where nothing is to be installed, the end of a sentence.

    Raises:
        CampfireError: one is missing, or cannot be imported; or another ``error``.

    >>> need("this sentence", "words", "no_such_module")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    campfire.errors.CampfireError: this sentence needs no_such_module (No module named 'no_such_module'); pip install ...
    """
    try:
        return [import_module(module) for module in modules]
    except ImportError as reason:
        names = " and ".join(modules)
        raise error(f"{who} needs {names} ({reason}); pip install 'campfire-sparse[{extra}]'{instead}") from reason
