"""Limits in seconds: what takes longer is broken off, and the next one begins."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any


class TimeUp(BaseException):
    """Not an Exception: what tries something else after any error is not to go on. ``found``: what was measured so far."""

    found: Any = None


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TimeUp` in the main thread after so many seconds."""

    def ring(*_: object) -> None:
        raise TimeUp(f"broken off after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
