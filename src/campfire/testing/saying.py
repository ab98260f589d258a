"""How a suite says what failed: the case in front of the message."""

from collections.abc import Callable


class Say:
    """Raises with the case in front of the message.

    >>> Say("ck at 0.5: ")(False, "keeps too many")
    Traceback (most recent call last):
    AssertionError: ck at 0.5: keeps too many
    """

    def __init__(self, case: str):
        self.case = case

    def __call__(self, holds: bool, message: str | Callable[[], str]) -> None:
        if not holds:
            raise AssertionError(self.case + (message if isinstance(message, str) else message()))
