"""Libraries by name: the cache, what to do where it or the compiler fails, and one warning of it."""

import atexit
import ctypes
import functools
import os
import shutil
import tempfile
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path

from campfire.errors import NoNative, UnknownName
from campfire.native.building import Build, check_name
from campfire.native.compilers import BuildFailed, compiler
from campfire.native.flavours import flavour
from campfire.native.store import Store, Unloadable

MODES = ("0", "1", "require")
_VARIABLES = ("CAMPFIRE_ISA", "CAMPFIRE_CACHE", "XDG_CACHE_HOME", "CXX")


@dataclass(frozen=True)
class Outcome:
    """A library, or why there is none."""

    library: ctypes.CDLL | None
    reason: str = ""


_outcomes: dict[tuple[str | None, ...], Outcome] = {}
_warned: set[str] = set()
_lock = threading.RLock()


def library(name: str) -> ctypes.CDLL | None:
    """The compiled ``native/cpp/NAME.cpp``; None where it cannot be had, told by one warning, or ``CAMPFIRE_NATIVE=0``.

    It is compiled on first use for the best instructions this CPU runs (``CAMPFIRE_ISA`` forces others) by the compiler in
    ``CXX`` or the system's, into ``CAMPFIRE_CACHE`` or the user's cache folder.

    Raises:
        BuildFailed: it cannot be had, and ``CAMPFIRE_NATIVE=require``.
        UnknownName: there is no such library, flavour or mode.
        DoesNotFit: this CPU cannot run the flavour in ``CAMPFIRE_ISA``.
    """
    if (wanted := mode()) == "0":
        return None
    request = request_of(name)
    if (found := _outcomes.get(request)) is None:
        with _lock:
            found = _outcomes.get(request) or _attempt(name, quiet=wanted == "require")
            _outcomes[request] = found
    return insisting(found)


def insisting(found: Outcome) -> ctypes.CDLL | None:
    """The library; raises `BuildFailed` where there is none and ``CAMPFIRE_NATIVE=require``."""
    if found.library is None and mode() == "require":
        raise BuildFailed(f"CAMPFIRE_NATIVE=require, and {found.reason}")
    return found.library


def outcome(name: str) -> Outcome | None:
    """What came of asking for a library in this process, with the variables as they are."""
    return _outcomes.get(request_of(name))


def mode() -> str:
    """``CAMPFIRE_NATIVE``: 0 (never), 1 (where it can be had: the default) or require.

    Raises:
        UnknownName: it is something else.
    """
    found = os.environ.get("CAMPFIRE_NATIVE") or "1"
    if found not in MODES:
        raise UnknownName("mode of CAMPFIRE_NATIVE", found, MODES)
    return found


def obtain(build: Build) -> ctypes.CDLL:
    """The library out of the cache folder, or out of a private one where that cannot be used, told by one warning.

    Raises:
        BuildFailed: the compiler, or loading what it made, fails.
    """
    try:
        return Store(cache_folder()).load(build)
    except (OSError, Unloadable) as error:
        found = Store(private_folder()).load(build)
        warn_once(
            "cache",
            f"the cache folder cannot be used ({error}); native libraries are compiled anew by every process, "
            f"here into {private_folder()}; name a folder that can be written and executed in CAMPFIRE_CACHE",
        )
        return found


def cache_folder() -> Path:
    """``CAMPFIRE_CACHE``, or ``campfire/native`` in ``XDG_CACHE_HOME`` or ``~/.cache``; `private_folder` without a home."""
    given = os.environ.get("CAMPFIRE_CACHE")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return (Path(given) if given else caches / "campfire" / "native").expanduser().absolute()
    except RuntimeError:  # nobody's home
        return private_folder()


@functools.cache
def private_folder() -> Path:
    """A folder of this process alone, gone when it ends."""
    folder, owner = tempfile.mkdtemp(prefix="campfire-native-"), os.getpid()
    atexit.register(lambda: os.getpid() == owner and shutil.rmtree(folder, ignore_errors=True))
    return Path(folder)


def request_of(name: str) -> tuple[str | None, ...]:
    """What a library is asked for with: its name and the variables that steer it."""
    return (name, *map(os.environ.get, _VARIABLES))


def _attempt(name: str, quiet: bool) -> Outcome:
    check_name(name)
    kind = flavour()
    try:
        return Outcome(obtain(Build(name, kind, compiler())))
    except (BuildFailed, OSError) as error:
        if not quiet:
            warn_once("compiler", f"no native kernels, torch does their work, slower: {error}")
        return Outcome(None, str(error))


def warn_once(what: str, message: str) -> None:
    """Once for each kind of trouble: what befalls one library befalls all."""
    if what not in _warned:
        _warned.add(what)
        warnings.warn(message, NoNative, stacklevel=5)
