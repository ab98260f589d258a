"""Libraries whose source is made while the program runs: through the same cache, one warning for each that fails."""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from campfire.native.building import CPP, Build
from campfire.native.compilers import BuildFailed, compiler
from campfire.native.flavours import flavour
from campfire.native.loading import Outcome, insisting, mode, obtain, request_of, warn_once

INCLUDE = re.compile(r'^#include "(\w+\.h)"', re.MULTILINE)

_outcomes: dict[tuple[str | None, ...], Outcome] = {}
_locks: dict[tuple[str | None, ...], threading.Lock] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Generated(Build):
    """A build of a text, which may include the package's own headers."""

    level: str = "-O2"  # its loops are unrolled already
    text: str = ""

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        yield f"{self.name}.cpp", self.text.encode()
        yield from sorted(headers(self.text).items())

    def compile(self, target: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="campfire-generated-") as work:
            source = Path(work) / f"{self.name}.cpp"
            source.write_text(self.text)
            self.compiler.compile(source, target, (*self.flags, f"-I{CPP}"))


def library(name: str, text: str, serves: str) -> ctypes.CDLL | None:
    """The compiled text; None where it cannot be had, told by one warning that says whom it was to serve.

    Raises:
        BuildFailed: it cannot be had, and ``CAMPFIRE_NATIVE=require``.
    """
    if mode() == "0":
        return None
    request = _request(name, text)
    if (found := _outcomes.get(request)) is None:
        with _lock_of(request):
            found = _outcomes.get(request) or _attempt(name, text, serves)
            _outcomes[request] = found
    return insisting(found)


def libraries(name: str, texts: Sequence[tuple[str, str]]) -> None:
    """Compile many (text, whom it serves) at once, so that asking for them later is quick."""
    with ThreadPoolExecutor(os.cpu_count()) as pool, contextlib.suppress(BuildFailed):
        list(pool.map(lambda both: library(name, *both), texts))


def headers(text: str) -> dict[str, bytes]:
    """The package's own headers that a text includes, and those that they include: name -> content."""
    found: dict[str, bytes] = {}
    left = INCLUDE.findall(text)
    while left:
        if (name := left.pop()) not in found:
            found[name] = (CPP / name).read_bytes()
            left += INCLUDE.findall(found[name].decode())
    return found


def size_of(name: str, text: str) -> int | None:
    """Bytes of the compiled text in this process; None where it could not be had."""
    found = _outcomes.get(_request(name, text))
    return None if found is None or found.library is None else Path(found.library._name).stat().st_size


def build_of(name: str, text: str) -> Generated:
    """What compiles a text here; raises `BuildFailed` where there is no compiler."""
    return Generated(name, flavour(), compiler(), text=text)


def _request(name: str, text: str) -> tuple[str | None, ...]:
    return (*request_of(name), _digest(text))


@functools.cache  # kernels ask at every call
def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _attempt(name: str, text: str, serves: str) -> Outcome:
    try:
        return Outcome(obtain(build_of(name, text)))
    except (BuildFailed, OSError) as error:
        warn_once(f"generated for {serves}", f"no generated code for {serves}, which runs slower without: {error}")
        return Outcome(None, str(error))


def _lock_of(request: tuple[str | None, ...]) -> threading.Lock:
    """One text is compiled once, different ones at the same time."""
    with _lock:
        return _locks.setdefault(request, threading.Lock())
