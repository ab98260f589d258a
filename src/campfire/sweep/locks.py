"""Locks that go with whoever holds them: no clock, no heartbeat, nothing to clean up after a kill."""

import fcntl
import os
from pathlib import Path


class Lock:
    """A lock on a file, held until it is released or its process ends."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


def try_lock(path: Path) -> Lock | None:
    """The lock on this file, made if need be; None while anybody holds it, this process included."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return Lock(descriptor)


def wait_lock(path: Path) -> Lock:
    """The lock on this file, once nobody else holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return Lock(descriptor)
