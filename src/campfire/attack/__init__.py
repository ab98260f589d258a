"""Attacks: small changes to images that mislead a network (floor 1).

``campfire attack`` runs them on trained networks; what it writes is described in `campfire.attack.record`.

>>> named("pgd", steps=20).step_of(0.1)
0.0125
"""

import dataclasses
from collections.abc import Iterator, Sequence

from torch import Tensor

from campfire.attack.gradient import Box, Model, fgsm, fgsm_each, pgd, right
from campfire.attack.library import PARTS, autoattack, require
from campfire.attack.norms import NORMS
from campfire.errors import UnknownName, UsageError

__all__ = ["KNOWN", "Attack", "autoattack", "fgsm", "named", "pgd", "right"]

KNOWN = ("fgsm", "pgd", "autoattack", *PARTS)
STARTS = ("random", "image")


@dataclasses.dataclass(frozen=True)
class Attack:
    """An attack with its options; those that it does not have stand still."""

    name: str
    norm: str = "linf"
    steps: int = 10
    step_size: float | None = None  # default: 2.5 eps / steps
    restarts: int = 1
    start: str = "random"

    def __post_init__(self) -> None:
        for kind, given, known in (
            ("attack", self.name, KNOWN),
            ("norm", self.norm, NORMS),
            ("start", self.start, STARTS),
        ):
            if given not in known:
                raise UnknownName(kind, given, known)
        if self.steps < 1 or self.restarts < 1 or (self.step_size is not None and not self.step_size > 0):
            raise UsageError(
                f"an attack wants steps >= 1, restarts >= 1 and a step size above 0; got {self.steps}, {self.restarts} "
                f"and {self.step_size}"
            )

    @property
    def by_library(self) -> bool:
        return self.name not in ("fgsm", "pgd")

    @property
    def part(self) -> str | None:
        """Of AutoAttack; None for all of it."""
        return None if self.name == "autoattack" else self.name

    def require(self, classes: int) -> None:
        """Raise `UsageError` where it cannot attack a network of so many classes here."""
        if self.by_library:
            require(classes, self.part)

    def step_of(self, eps: float) -> float | None:
        """The length of one step; None where the attack chooses it as it goes."""
        if self.name == "fgsm":
            return eps
        if self.by_library:
            return None
        return 2.5 * eps / self.steps if self.step_size is None else self.step_size

    def facts(self, eps: float) -> dict[str, object]:
        """What `campfire.attack.record` keeps of it."""
        mine = self.name == "pgd"
        return {
            "attack": self.name,
            "norm": self.norm,
            "eps": eps,
            "steps": self.steps if mine else 1 if self.name == "fgsm" else None,
            "step_size": self.step_of(eps),
            "restarts": self.restarts if mine else 1,
            "start": self.start if mine else None,
        }

    def together(self, eps: Sequence[float]) -> list[Sequence[float]]:
        """The distances that are attacked at once by `each`: with FGSM all, which share a gradient."""
        return [eps] if self.name == "fgsm" else [[distance] for distance in eps]

    def each(
        self, model: Model, x: Tensor, y: Tensor, eps: Sequence[float], box: Box, keys: Sequence[int]
    ) -> Iterator[Tensor]:
        """The images moved by each of the distances, as calls with one after the other move them, bit for bit."""
        if self.name == "fgsm" and any(eps):
            moved = zip(eps, fgsm_each(model, x, y, eps, norm=self.norm, box=box), strict=True)
            yield from (images if distance else x for distance, images in moved)
        else:
            yield from (self(model, x, y, distance, box, keys) for distance in eps)

    def __call__(self, model: Model, x: Tensor, y: Tensor, eps: float, box: Box, keys: Sequence[int]) -> Tensor:
        """The images moved by at most ``eps``; ``keys`` is a number for each image, which decides what is drawn for it."""
        if eps == 0:
            return x
        if self.name == "fgsm":
            return fgsm(model, x, y, eps, norm=self.norm, box=box)
        if self.name == "pgd":
            return pgd(
                model, x, y, eps, norm=self.norm, box=box, steps=self.steps, step_size=self.step_size,
                restarts=self.restarts, start=self.start, keys=keys,
            )  # fmt: skip
        return autoattack(model, x, y, eps, norm=self.norm, part=self.part, seed=min(keys))


def named(name: str, **options: object) -> Attack:
    """An attack by name, with options.

    Raises:
        UnknownName: no attack, norm or start is called so; the nearest is suggested.
        UsageError: an option out of its range.
    """
    return Attack(name, **options)  # pyright: ignore[reportArgumentType]
