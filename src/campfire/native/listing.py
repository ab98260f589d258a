"""What there is of the native libraries, told and made."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from campfire.native import loading
from campfire.native.building import Build, sources
from campfire.native.compilers import BuildFailed, Compiler, compiler
from campfire.native.flavours import Flavour, flavour, this_cpu
from campfire.native.store import Store


def info() -> dict[str, Any]:
    """Compiler, flavour, flags, cache folder, and the state of every library; compiles nothing.

    >>> sorted(info()["libraries"]["masks"])
    ['file', 'reason', 'size', 'state']
    """
    kind = flavour()
    try:
        found, reason = compiler(), ""
    except BuildFailed as error:
        found, reason = None, str(error)
    libraries = {name: _state(name, Build(name, kind, found) if found else None) for name in sources()}
    return {**_setting(kind, found), "reason": reason, "libraries": libraries}


def build_all(isa: str | None = None) -> dict[str, Any]:
    """`info` after compiling all that is not in the cache folder, for the best flavour that this CPU runs or a given one.

    Raises:
        UnknownName: there is no such flavour.
        DoesNotFit: this CPU cannot run it.
        BuildFailed: there is no compiler.
        OSError: the cache folder cannot be used.
    """
    kind, found = flavour(isa), compiler()
    with ThreadPoolExecutor() as pool:
        states = dict(zip(sources(), pool.map(lambda name: _build(Build(name, kind, found)), sources()), strict=True))
    return {**_setting(kind, found), "reason": "", "libraries": states}


def _setting(kind: Flavour, found: Compiler | None) -> dict[str, Any]:
    mode = loading.mode()
    return {
        "mode": mode,
        "state": "off" if mode == "0" else "no compiler" if found is None else "ready",
        "compiler": found and str(found),
        "version": found and found.version,
        "flavour": kind.name,
        "flags": list(Build("", kind, found).flags) if found else [],
        "cpu": this_cpu().name,
        "cache": str(loading.cache_folder()),
    }


def _state(name: str, build: Build | None) -> dict[str, Any]:
    """ "loaded", "built", "not built" or "failed"; the file, and its size in bytes."""
    asked = loading.outcome(name)
    path = build and Store(loading.cache_folder()).find(build)
    state = "built" if path else "not built"
    if asked is not None:
        state = "failed" if asked.library is None else "loaded"
        path = path or (asked.library and Path(asked.library._name))
    return _told(state, path, asked.reason if asked else "")


def _build(build: Build) -> dict[str, Any]:
    store, start = Store(loading.cache_folder()), time.perf_counter()
    there = store.find(build) is not None
    try:
        store.load(build)
    except BuildFailed as error:
        return _told("failed", None, str(error))
    spent = 0.0 if there else time.perf_counter() - start
    return {**_told("built", store.path(build)), "seconds": round(spent, 2)}


def _told(state: str, path: Path | None, reason: str = "") -> dict[str, Any]:
    return {"state": state, "file": path and str(path), "size": path and path.stat().st_size, "reason": reason}
