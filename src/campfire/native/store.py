"""A folder of compiled libraries that many processes share, and that is never trusted.

Beside every library lies a note with the key of its build and the digest of its bytes: what has no note, or does not
agree with it, is foreign or damaged, is never loaded, and is made anew. Files appear whole, by renaming.
"""

import contextlib
import ctypes
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from campfire.native.building import Build
from campfire.native.compilers import BuildFailed

try:
    import fcntl
except ImportError:  # no such locks here: two processes may then compile the same, which harms nobody
    fcntl = None


@dataclass(frozen=True)
class Store:
    """Compiled libraries in a folder."""

    folder: Path

    def path(self, build: Build) -> Path:
        return self.folder / f"{build.stem}.so"

    def find(self, build: Build) -> Path | None:
        """The library, if it is there and is what its note says."""
        path = self.path(build)
        try:
            note = json.loads(path.with_suffix(".json").read_text())
            true = note["key"] == build.key and note["sha256"] == _digest(path)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return path if true else None

    def load(self, build: Build) -> ctypes.CDLL:
        """The library, made first if need be.

        Raises:
            BuildFailed: it cannot be compiled, or what was compiled cannot be loaded.
            OSError: the folder cannot be used.
        """
        with contextlib.suppress(Unloadable):
            if path := self.find(build):
                return _load(path)
        with self._lock(build):
            with contextlib.suppress(Unloadable):
                if path := self.find(build):  # another process was first
                    return _load(path)
            return _load(self._make(build))

    def _make(self, build: Build) -> Path:
        with tempfile.TemporaryDirectory(prefix="campfire-native-") as work:
            made = Path(work) / "library.so"
            build.compile(made)
            self._keep(build, made)
        if not (path := self.find(build)):
            raise OSError(f"{self.path(build)} was written and then changed")
        return path

    def _keep(self, build: Build, made: Path) -> None:
        """First copied, for this folder may be on another disk; then renamed, which nobody sees half done."""
        part = Path(tempfile.mkdtemp(prefix=f"{build.stem}.part-", dir=self.folder))
        try:
            library, note = Path(shutil.copy(made, part)), part / "note.json"
            told = {"key": build.key, "sha256": _digest(made), "flags": build.flags, "compiler": build.compiler.version}
            note.write_text(json.dumps(told))
            note.replace(library.replace(self.path(build)).with_suffix(".json"))
        finally:
            shutil.rmtree(part, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self, build: Build) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{build.stem}.lock").open("w") as file:
            if _locked(file.fileno()):
                for left in self.folder.glob(f"{build.stem}.part-*"):  # by a process that was killed
                    shutil.rmtree(left, ignore_errors=True)
            yield


class Unloadable(BuildFailed):
    """The system does not load the file: no library, or a folder from which nothing may be executed."""


def _load(path: Path) -> ctypes.CDLL:
    import torch  # noqa: F401  first: its OpenMP runtime is the one that all libraries share

    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise Unloadable(f"{path} was compiled and cannot be loaded: {error}") from None


def _locked(descriptor: int) -> bool:
    """Wait for the lock, which goes with the file's closing; False where the file system knows none."""
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return False
    return fcntl is not None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
