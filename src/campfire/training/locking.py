"""One run at a time in a directory: a lock that dies with its process, however it dies."""

import contextlib
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from campfire.errors import UsageError

try:
    import fcntl
except ImportError:  # not there on Windows
    fcntl = None

NAME = ".lock"
BUSY = (errno.EACCES, errno.EAGAIN)
_held: set[Path] = set()  # by this process, which its own locks do not stop


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a directory, which is made, and goes again if nothing was written into it.

    It is a lock of the process (``fcntl``), not of its children: a worker that outlives a killed run does not hold it.

    Raises:
        UsageError: a live run holds the lock, or the directory cannot be written to.
    """
    path = folder.resolve() / NAME
    if path in _held:
        raise _refusal(folder, "this very process")
    try:
        made = _make(path.parent)
        descriptor = _take(path, folder)
    except OSError as error:
        raise UsageError(f"cannot write in the output {folder}: {error.strerror}; give another --output") from None
    _held.add(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is still locked: who waits for it looks again
        os.close(descriptor)
        _held.discard(path)
        with contextlib.suppress(OSError):
            for empty in made:
                empty.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a directory; returns those that were made, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _take(path: Path, folder: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock(descriptor):
            holder = os.read(descriptor, 200).decode(errors="replace")
            os.close(descriptor)
            raise _refusal(folder, holder or "another process")
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()):
            break
        os.close(descriptor)  # its owner ended, and took it away, between the two calls
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    return descriptor


def _lock(descriptor: int) -> bool:
    """Whether nobody else has it; true also of a file system without locks."""
    try:
        if fcntl is not None:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in BUSY
    return True


def _refusal(folder: Path, holder: str) -> UsageError:
    return UsageError(f"the output {folder} is in use by {holder}; wait for its end, or give another --output")
