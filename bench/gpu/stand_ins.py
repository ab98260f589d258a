"""Stand-ins for packages that only configurations and checkpoints need, where they are not installed."""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any


def _nothing(*_: Any, **__: Any) -> Any:
    return None


def _pydantic() -> ModuleType:
    module = ModuleType("pydantic")
    error = type("ValidationError", (Exception,), {})
    given = {"BaseModel": type("BaseModel", (), {}), "ConfigDict": dict, "ValidationError": error}
    for name in ("Field", "BeforeValidator", "TypeAdapter"):
        given[name] = _nothing
    vars(module).update(given)
    return module


MAKERS = {"pydantic": _pydantic, "yaml": lambda: ModuleType("yaml")}


class Block(importlib.abc.MetaPathFinder):
    """Packages that are not found although they are there: a machine without them, in tests."""

    def __init__(self, names: Sequence[str]):
        self.names = set(names)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        if fullname.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


def install(without: Sequence[str] = ()) -> list[str]:
    """Put stand-ins where a package is missing, or is to be ``without``; which."""
    if without:
        sys.meta_path.insert(0, Block([name for name in without if name not in MAKERS]))
    missing = [name for name in MAKERS if name in without or importlib.util.find_spec(name) is None]
    for name in missing:
        sys.modules[name] = MAKERS[name]()
    return missing
