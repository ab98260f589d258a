"""Locks that go with whoever holds them: no clock, no heartbeat, nothing to clean up after a kill."""

import os
from pathlib import Path

from campfire.errors import UsageError

try:
    import fcntl
except ImportError:  # not there on Windows, where what sweeps have written can be read all the same
    fcntl = None


class Lock:
    """A lock on a file, held until it is released or its process ends."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


def try_lock(path: Path) -> Lock | None:
    """The lock on this file, made if need be; None while anybody holds it, this process included."""
    return _lock(path, wait=False)


def wait_lock(path: Path) -> Lock:
    """The lock on this file, once nobody else holds it."""
    lock = _lock(path, wait=True)
    assert lock is not None
    return lock


def _lock(path: Path, wait: bool) -> Lock | None:
    if fcntl is None:
        raise UsageError("sweeps need the file locks of Linux or macOS; run them there")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return Lock(descriptor)
