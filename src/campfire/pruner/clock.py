"""Clock: where training stands, counted in optimizer steps."""

import math
import operator
from dataclasses import dataclass

from campfire.errors import UsageError


@dataclass
class Clock:
    """Steps done, and the epoch they make.

    >>> clock = Clock()
    >>> clock.pace(4)
    >>> clock.steps = 6
    >>> clock.epoch
    1.5
    >>> clock.pace(2)  # a resume with larger batches goes on from the same epoch
    >>> clock.steps += 1
    >>> clock.epoch
    2.0
    """

    steps: int = 0
    steps_per_epoch: int | None = 1  # None: epochs pass only by being set
    epoch_then: float = 0.0  # the epoch at which the clock was last set, and the step then
    steps_then: int = 0

    @property
    def epoch(self) -> float:
        """Epochs trained: a float that moves with every step."""
        if self.steps_per_epoch is None:
            return self.epoch_then
        return self.epoch_then + (self.steps - self.steps_then) / self.steps_per_epoch

    def set(self, epoch: float, steps: int | None = None) -> None:
        """It is ``epoch`` now, and so many steps are done."""
        if not 0 <= epoch < math.inf:
            raise UsageError(f"an epoch is a number from 0 on; got {epoch}")
        self.steps = self.steps if steps is None else whole(steps, "a number of steps")
        self.epoch_then, self.steps_then = float(epoch), self.steps

    def pace(self, steps_per_epoch: int | None) -> None:
        """So many steps make an epoch from now on."""
        steps_per_epoch = None if steps_per_epoch is None else whole(steps_per_epoch, "steps_per_epoch")
        if steps_per_epoch is not None and steps_per_epoch < 1:
            raise UsageError(f"steps_per_epoch is the number of optimizer steps in an epoch; got {steps_per_epoch}")
        if steps_per_epoch != self.steps_per_epoch:
            self.set(self.epoch)
            self.steps_per_epoch = steps_per_epoch


def whole(number: object, what: str) -> int:
    """A number as Python's own int: checkpoints hold no other.

    >>> import numpy
    >>> whole(numpy.int64(3), "steps"), whole(400.0, "steps")
    (3, 400)

    Raises:
        UsageError: it is none, as 390.6 steps.
    """
    try:
        whole = isinstance(number, float) and number.is_integer()
        return int(number) if whole else operator.index(number)  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise UsageError(f"{what} is whole; got {number!r}: round it, as len(loader) is") from None
