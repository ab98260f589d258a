"""Every error says what was given, what was wanted, and the cure (ground floor: standard library only)."""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class CampfireError(ValueError):
    """Base of every error raised on purpose; ``exit_code`` is what the command line returns for it."""

    exit_code: ClassVar[int] = 1
    told = False  # whether another process of the run reports it


class UsageError(CampfireError):
    """The request itself cannot be met: a bad option, rule, configuration or path."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is not registered; the nearest known one is suggested.

    >>> str(UnknownName("structure", "windwo", ["ck", "window"]))
    "no structure is called 'windwo'; did you mean 'window'? Known: ck, window."
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        super().__init__(f"no {kind} is called {name!r}{hint} Known: {', '.join(names)}.")


class DoesNotFit(UsageError):
    """Something cannot be used there, with every reason."""

    def __init__(self, what: str, on: str, reasons: Iterable[str]):
        self.reasons = list(reasons)
        super().__init__(f"{what} does not fit {on}:" + "".join(f"\n  - {r}" for r in self.reasons))


class CheckpointError(CampfireError):
    """A file that cannot be read as what it should be: truncated, foreign, or of the wrong types."""


class Diverged(CampfireError):
    """The loss is no longer a finite number."""

    exit_code = 3


class NoEffect(UserWarning):
    """Something was asked for and changes nothing."""


class Clamped(UserWarning):
    """A layer would need a density above 1: it stays dense, and the others share what is left."""


class LostOutputs(UserWarning):
    """Pruning removed every weight of some output channels."""


class NoNative(UserWarning):
    """Native libraries cannot be had, or not kept; everything works, slower."""
