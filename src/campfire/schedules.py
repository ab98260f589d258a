"""Schedules: epoch -> sparsity, the fraction of zeros wanted by then (floor 0: no torch).

An epoch is a float: 3.25 is a quarter of the way through the epoch with index 3.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from campfire.errors import UnknownName, UsageError


def _check_sparsity(value: float, what: str) -> None:
    if not 0 <= value < 1:
        raise UsageError(f"{what} is the fraction of zeros and must lie in [0, 1); got {value}")


class Schedule(ABC):
    """How much to remove by when; masks may change from epoch ``start`` until ``end``, and never after."""

    start: float  # the first epoch at which masks may change
    target: float  # the final sparsity, in [0, 1)

    @abstractmethod
    def __call__(self, epoch: float) -> float:
        """The sparsity wanted while epoch ``epoch`` trains, in [0, 1); never falls as epochs pass."""

    @property
    @abstractmethod
    def end(self) -> float:
        """The epoch at which the target is reached."""

    def over(self, epoch: float) -> bool:
        """Whether masks are frozen by now: the target was reached and applied in an earlier step."""
        return epoch > self.end

    @property
    def last(self) -> int:
        """The last epoch, counted from 0, in which masks may change.

        >>> Era(start=1, length=3, target=0.7).last, OneShot(at=0, target=0.5).last
        (4, 0)
        """
        return math.floor(self.end + 1e-9)

    def to_dict(self) -> dict[str, Any]:
        """The fields plus ``kind``, for checkpoints and configuration files."""
        return {"kind": type(self).__name__.lower(), **self.__dict__}


@dataclass(frozen=True)
class Era(Schedule):
    """Campfire's pruning era, eq. 1: s = s_f + (s_i - s_f) (1 - (e - start)/length)^power.

    With ``by="epoch"`` (the paper) e is the whole number of the running epoch, so the target stands still inside an
    epoch and is reached in epoch ``start + length``; with ``by="step"`` it moves with every optimizer step.

    Raises:
        UsageError: a sparsity outside of [0, 1), a target below ``initial``, or a start, length or power that cannot be.
        UnknownName: no such ``by``.

    >>> era = Era(start=30, length=20, target=0.7)
    >>> [round(era(e), 4) for e in (29, 30, 35, 35.9, 50, 90)]
    [0.0, 0.0, 0.4047, 0.4047, 0.7, 0.7]
    """

    start: float
    length: float
    target: float
    initial: float = 0.0
    power: float = 3.0
    by: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        _check_sparsity(self.target, "target")
        if not 0 <= self.initial <= self.target:
            raise UsageError(f"an era runs from initial up to target; got initial={self.initial}, target={self.target}")
        finite = all(map(math.isfinite, (self.start, self.length, self.power)))
        if not finite or self.start < 0 or self.length <= 0 or self.power <= 0:
            raise UsageError(
                f"an era needs start >= 0, length > 0 (epochs) and power > 0; "
                f"got start={self.start}, length={self.length}, power={self.power}"
            )
        if self.by not in ("epoch", "step"):
            raise UnknownName("era clock", self.by, ("epoch", "step"))

    def __call__(self, epoch: float) -> float:
        epoch = self._clock(epoch)
        if epoch < self.start:
            return 0.0
        left = max(1 - (epoch - self.start) / self.length, 0.0)
        return self.target + (self.initial - self.target) * left**self.power

    @property
    def end(self) -> float:
        """By epoch a whole one: the target is asked for when an epoch begins."""
        end = self.start + self.length
        return float(math.ceil(end - 1e-9)) if self.by == "epoch" else end

    def over(self, epoch: float) -> bool:
        return self._clock(epoch) > self.end

    def _clock(self, epoch: float) -> float:
        return math.floor(epoch + 1e-9) if self.by == "epoch" else epoch


@dataclass(frozen=True)
class Steps(Schedule):
    """Prune, retrain, prune more (Han et al. 2015; Mao et al. 2017): ``at`` lists (epoch, sparsity), both rising.

    Raises:
        UsageError: no pair, a sparsity outside of [0, 1), or epochs or sparsities that do not rise.

    >>> steps = Steps(((2, 0.3), (5, 0.6)))
    >>> [steps(e) for e in (1.9, 2, 4.5, 5)]
    [0.0, 0.3, 0.3, 0.6]
    """

    at: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "at", tuple((float(e), float(s)) for e, s in self.at))
        except (TypeError, ValueError) as error:
            raise UsageError(f"Steps takes pairs, as Steps(((2, 0.3), (5, 0.6))); got {self.at!r}") from error
        if not self.at:
            raise UsageError("Steps needs at least one (epoch, sparsity) pair")
        for _, sparsity in self.at:
            _check_sparsity(sparsity, "each sparsity of Steps")
        finite = all(math.isfinite(epoch) for epoch, _ in self.at)
        if (
            not finite
            or self.at[0][0] < 0
            or any(b[0] <= a[0] or b[1] < a[1] for a, b in zip(self.at, self.at[1:], strict=False))
        ):
            raise UsageError(f"the epochs and sparsities of Steps must rise from 0 on; got {self.at}")

    @classmethod
    def every(cls, epochs: float, sparsities: Iterable[float], start: float = 0.0) -> "Steps":
        """One sparsity after another, ``epochs`` of retraining between them."""
        return cls(tuple((start + i * epochs, s) for i, s in enumerate(sparsities)))

    def __call__(self, epoch: float) -> float:
        return max((s for e, s in self.at if e <= epoch + 1e-9), default=0.0)

    @property
    def start(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.at[0][0]

    @property
    def end(self) -> float:
        return self.at[-1][0]

    @property
    def target(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.at[-1][1]


@dataclass(frozen=True)
class OneShot(Schedule):
    """Everything at once: sparsity ``target`` from epoch ``at`` on (prune at init: ``at=0``).

    Raises:
        UsageError: a sparsity outside of [0, 1), or an epoch below 0.

    >>> OneShot(at=4, target=0.5)(3.99), OneShot(at=4, target=0.5)(4)
    (0.0, 0.5)
    """

    at: float
    target: float

    def __post_init__(self) -> None:
        _check_sparsity(self.target, "target")
        if not 0 <= self.at < math.inf:
            raise UsageError(f"OneShot prunes at an epoch >= 0; got {self.at}")

    def __call__(self, epoch: float) -> float:
        return self.target if epoch + 1e-9 >= self.at else 0.0

    @property
    def start(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.at

    @property
    def end(self) -> float:
        return self.at


KINDS: dict[str, type[Schedule]] = {"era": Era, "steps": Steps, "oneshot": OneShot}


def named(kind: str, **fields: Any) -> Schedule:
    """A schedule by name: ``era``, ``steps`` or ``oneshot``.

    >>> named("oneshot", at=0, target=0.5)
    OneShot(at=0, target=0.5)
    """
    if kind not in KINDS:
        raise UnknownName("schedule", kind, KINDS)
    return KINDS[kind](**fields)
