"""Signals that ask a run to stop: noted here, obeyed between two training steps."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import ClassVar

from campfire.errors import CampfireError


class Preempted(CampfireError):
    """SIGTERM or SIGUSR1 stopped the run after a checkpoint; it can be resumed."""

    exit_code: ClassVar[int] = 75


class Interrupted(Preempted):
    """Ctrl-C stopped the run after a checkpoint; it can be resumed."""

    exit_code: ClassVar[int] = 130


class StopSignals:
    """While open, SIGTERM, SIGUSR1 and the first Ctrl-C are remembered instead of killing the process.

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread nothing is caught.
    """

    caught: ClassVar[tuple[signal.Signals, ...]] = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.agreed: signal.Signals | None = None

    def __enter__(self) -> "StopSignals":
        main = threading.current_thread() is threading.main_thread()
        self._before = {s: signal.signal(s, self._note) for s in self.caught} if main else {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is signal.SIGINT and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)

    def agree(self, highest: Callable[[int], int]) -> bool:
        """Whether a signal came to any process of the run, so that all of them stop after the same step."""
        number = highest(int(self.received or 0))
        self.agreed = signal.Signals(number) if number else None
        return self.agreed is not None

    def check(self) -> None:
        """Raise `Preempted` or `Interrupted` if that is agreed."""
        if self.agreed is not None:
            kind = Interrupted if self.agreed is signal.SIGINT else Preempted
            raise kind(f"stopped by {self.agreed.name}; continue with --resume")
