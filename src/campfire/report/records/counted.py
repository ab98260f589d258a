"""What a run directory may hold beside its training: costs, chosen kernels and attacks, as frozen values."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Activity:
    """Traffic of one image: references by how they are merged, and bytes to and from memory."""

    references: dict[str, float]
    dense_references: dict[str, float]
    moved_bytes: float


@dataclass(frozen=True)
class Cost:
    """One layer, or several together; for one image. ``mao_ratio``: of dense storage, by the formula of Mao et al."""

    macs: float
    sparse_macs: float
    file_bytes: float
    dense_bytes: float
    mao_ratio: float
    activity: Activity | None = None

    @property
    def references(self) -> tuple[float, float] | None:
        """Of output memory, and were all weights alive; products of one kernel row are one."""
        one = "row_merge"
        return None if self.activity is None else (self.activity.references[one], self.activity.dense_references[one])


@dataclass(frozen=True)
class LayerCost(Cost):
    """One layer."""

    name: str = ""


@dataclass(frozen=True)
class Costs:
    """``costs.json``: what ``campfire cost RUN --json`` prints, too."""

    convolutions: Cost
    layers: tuple[LayerCost, ...] = ()
    images: int = 0


@dataclass(frozen=True)
class Pass:
    """One pass of one layer: its kernel, and times faster than the dense library, predicted and by the clock."""

    kernel: str
    predicted: float | None = None
    measured: float | None = None

    @property
    def speed(self) -> float | None:
        """1 where the dense library runs it; else as measured, or as predicted where nothing was timed."""
        known = self.predicted if self.measured is None else self.measured
        return 1.0 if self.kernel == "reference" else known


@dataclass(frozen=True)
class LayerKernels:
    """One sparse layer, and what runs it."""

    name: str
    passes: dict[str, Pass]
    density: float | None = None
    dtype: str = ""


@dataclass(frozen=True)
class Kernels:
    """``kernels.json``: the plan that a compressed run trained with; ``whole``: the model, times faster than dense."""

    layers: tuple[LayerKernels, ...] = ()
    measured: bool = False
    threads: int | None = None
    whole: float | None = None


@dataclass(frozen=True)
class Hit:
    """Top-1 in percent, and its 95 % interval."""

    top1: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Attack(Hit):
    """Top-1 that is left at one strength of one attack; ``eps`` in units of ``space``, pixel or normalised."""

    attack: str = ""
    norm: str = ""
    space: str = "pixel"
    eps: float = 0.0
    steps: int | None = None
    restarts: int | None = None
    start: str | None = None
    step_size: float | None = None

    @property
    def curve(self) -> str:
        """What the strengths of one curve have in common."""
        effort = f", {self.steps} steps" if self.steps and self.steps > 1 else ""
        effort += f" x {self.restarts}" if self.restarts and self.restarts > 1 else ""
        if self.attack == "pgd" and unusual(self.eps, self.steps, self.step_size):
            effort += f", each {self.step_size:.3g}"
        return f"{self.attack}, {self.norm}, {self.space}{effort}{f', {self.start}' if self.start else ''}"


@dataclass(frozen=True)
class Attacks:
    """``attack.json`` (`campfire.attack.record`); runs of equal ``attacked`` were attacked on the same images."""

    format: Literal["campfire-attack-1"]
    clean: Hit
    results: tuple[Attack, ...] = ()
    sample: str = ""
    fingerprint: str = ""

    @property
    def attacked(self) -> tuple[str, str]:
        """Which images: the data set, and the places of these in it."""
        return self.fingerprint, self.sample

    def curves(self) -> dict[str, list[Hit]]:
        """Curve -> clean accuracy at strength 0, and what is left at each strength, in its order."""
        found: dict[str, list[Hit]] = {}
        for hit in sorted(self.results, key=lambda hit: hit.eps):
            found.setdefault(hit.curve, [self.clean]).append(hit)
        return found


def strength(hit: Hit) -> float:
    """The eps of a result; 0 of clean accuracy."""
    return hit.eps if isinstance(hit, Attack) else 0.0


def unusual(eps: float, steps: int | None, step_size: float | None) -> bool:
    """Whether PGD's steps are of another length than 2.5 eps / steps.

    >>> unusual(0.04, 10, 0.01), unusual(0.04, 10, 1e-6)
    (False, True)
    """
    if steps is None or step_size is None:
        return False
    return not math.isclose(step_size, 2.5 * eps / steps, rel_tol=1e-6)
