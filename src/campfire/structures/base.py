"""Structure, the interface, and Grain, the workhorse: a unit of removal and the scope of its budget.

Axes of a weight [K, C, R, S], each cut into tiles: a capital letter counts tiles, a small one counts inside a tile.
The default tile is one kernel, so ``K C`` number the kernels and ``r s`` the taps.

- grain: axes that live or die together (Mao et al.: 0-D "" to 3-D "C r s")
- budget: axes along which the number kept is fixed (Campfire's strict budget: "K C", per kernel)
- all other axes compete.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from campfire.errors import DoesNotFit
from campfire.mask import Mask
from campfire.selection import guarded_floor, keep_best, keep_best_rows, row_bests
from campfire.spelling import spell

Shape = tuple[int, ...]
Plan = dict[str, Tensor]
REGISTRY: dict[str, type["Structure"]] = {}
AXES = "KkCcRrSs"


@dataclasses.dataclass(frozen=True)
class Structure(ABC):
    """Which zeros are allowed. A subclass with a ``name`` is registered by being defined.

    Shapes are [K, C / groups, R, S]; a linear layer is [K, C, 1, 1].
    """

    name: ClassVar[str] = ""
    layout: ClassVar[str] = "csr"  # how the survivors are stored; "csr" holds any mask
    scope: ClassVar[str] = "conv"  # the layers it is meant for where no rule names any: "conv" or "linear"
    drops_outputs: ClassVar[bool] = False  # whole outputs go on purpose
    needs: ClassVar[tuple[str, ...]] = ()  # of a mask's plan, for `why_invalid` to judge it

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            REGISTRY[cls.name] = cls

    def __str__(self) -> str:
        """The spelling that `campfire.structures.named` reads back: ``window:mode=campfire``."""
        return spell(self.name, self)

    def why_not(self, shape: Shape, groups: int = 1) -> list[str]:
        """Reasons why the structure cannot be laid on a weight of this shape; [] when it can."""
        if groups > 1 and shape[1] == 1:
            return [f"it is depthwise ({groups} groups of one input channel): to remove a kernel is to lose its output"]
        return []

    def remarks(self, shape: Shape, sparsity: float) -> list[str]:
        """What is worth knowing where the structure does fit: of this shape, at its final sparsity."""
        return []

    @abstractmethod
    def count(self, shape: Shape, sparsity: float) -> int:
        """The declared budget: how many weights live at ``sparsity``, a function of the shape alone."""

    def saliency(self, score: Tensor, plan: Plan | None = None) -> Tensor:
        """Every weight's share in the importance of the unit it would die with, [K, C, R, S]: to compare layers."""
        return score

    def plan(self, score: Tensor, goal: float) -> Plan:
        """What is decided once, before the first projection, for the *final* sparsity: row order, pattern book."""
        return {}

    def replan(self, score: Tensor, goal: float, plan: Plan) -> Plan:
        """The plan of masks that are made anew, where methods regrow; ``plan`` is that of the masks before."""
        return self.plan(score, goal)

    @abstractmethod
    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        """The best-scored mask of this structure that keeps ``count`` of the living weights.

        Args:
            score: importance >= 0, [K, C, R, S].
            count: weights to keep, a value of `count` not above the number alive.
            plan: what `plan` returned.
            alive: bool [K, C, R, S]; the dead stay dead.

        Returns:
            bool [K, C, R, S].
        """

    def parts(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> tuple[Tensor, ...]:
        """Masks whose intersection `project` makes, as a lasso presses on what each of them would remove; here that one alone."""
        return (self.project(score, count, plan, alive),)

    @abstractmethod
    def why_invalid(self, mask: Mask) -> list[str]:
        """Reasons why a mask is not one of this structure's; [] when it is."""

    def any_mask(self, shape: Shape) -> bool:
        """Whether every mask of this shape is legal (single weights compete), so that none can be invalid."""
        return False

    def run(self, shape: Shape) -> int:
        """Where the units are runs of so many neighbours in [K, C, R, S], and compete over the whole layer by their largest
        score: that length; 0 otherwise. `project` must make the same masks; this makes them for many layers at once."""
        return 0

    def least(self, shape: Shape) -> float:
        """The smallest true sparsity above 0 that this shape can take."""
        low, high, size = 0.0, 1 - 1e-9, math.prod(shape)
        if self.count(shape, high) == size:
            return 0.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.count(shape, middle) == size else (low, middle)
        return 1 - self.count(shape, high) / size

    def sparsity_of(self, shape: Shape, count: int) -> float:
        """The smallest sparsity whose declared budget is ``count`` or less: the inverse of `count`."""
        low, high = 0.0, 1 - 1e-9
        if self.count(shape, low) <= count:
            return low
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if self.count(shape, middle) <= count else (middle, high)
        return high


@dataclasses.dataclass(frozen=True)
class Grain(Structure):
    """A regular structure, told by four words: ``grain``, ``budget``, ``reduce`` (sum or max of |w|) and ``tile``."""

    grain: ClassVar[str] = ""
    budget: ClassVar[str] = ""
    reduce: ClassVar[str] = "sum"

    def tile(self, shape: Shape) -> Shape:
        """The tile of each axis; must divide the shape."""
        return 1, 1, shape[2], shape[3]

    def _axes(self) -> tuple[list[int], list[int], list[int]]:
        grain = [AXES.index(a) for a in self.grain.split()]
        budget = [AXES.index(a) for a in self.budget.split()]
        return grain, budget, [i for i in range(8) if i not in grain + budget]

    def _cut(self, shape: Shape) -> list[int]:
        return [n for size, tile in zip(shape, self.tile(shape), strict=True) for n in (size // tile, tile)]

    def _sizes(self, shape: Shape) -> tuple[int, int, int]:
        """Weights in a unit, number of budgets, competing units in each."""
        cut = self._cut(shape)
        grain, budget, free = (math.prod(cut[i] for i in axes) for axes in self._axes())
        return grain, budget, free

    def count(self, shape: Shape, sparsity: float) -> int:
        unit, budgets, free = self._sizes(shape)
        return unit * budgets * (free - guarded_floor(sparsity * free))

    def any_mask(self, shape: Shape) -> bool:
        unit, budgets, _ = self._sizes(shape)
        return unit == budgets == 1

    def run(self, shape: Shape) -> int:
        unit, budgets, _ = self._sizes(shape)
        runs = self.grain == "r s" and self.tile(shape) == (1, 1, *shape[2:])
        return unit if budgets == 1 and (unit == 1 or (runs and self.reduce == "max")) else 0

    def project(self, score: Tensor, count: int, plan: Plan, alive: Tensor) -> Tensor:
        unit, budgets, _ = self._sizes(tuple(score.shape))
        if self.run(tuple(score.shape)) > 1:
            best, held = row_bests(score.reshape(-1, unit), alive.reshape(-1, unit))
            keep = keep_best(best, count // unit, held > 0)
            return keep.view(*score.shape[:2], 1, 1).expand(alive.shape).contiguous()
        score, living = self._units(score), self._units(alive)
        if budgets == 1:
            keep = keep_best(score.flatten(), count // unit, living.flatten()).view_as(score)
        else:
            keep = keep_best_rows(score, count // (unit * budgets), living)
        return self._weights(keep, tuple(alive.shape))

    def saliency(self, score: Tensor, plan: Plan | None = None) -> Tensor:
        shape = tuple(score.shape)
        share = 1 if self.reduce == "max" else self._sizes(shape)[0]
        return self._weights(self._units(score) / share, shape)

    def _units(self, x: Tensor) -> Tensor:
        """[K, C, R, S] -> one value a unit, [budgets, competing units]."""
        grain, budget, free = self._axes()
        cut = x.reshape(self._cut(tuple(x.shape)))
        if math.prod(cut.shape[i] for i in grain) > 1:
            if x.dtype == torch.bool:
                cut = cut.any(grain, keepdim=True)
            else:
                cut = cut.amax(grain, keepdim=True) if self.reduce == "max" else cut.sum(grain, keepdim=True)
        return cut.permute(budget + free + grain).reshape(math.prod(cut.shape[i] for i in budget), -1)

    def _weights(self, units: Tensor, shape: Shape) -> Tensor:
        """The way back from `_units`: every weight gets its unit's value."""
        grain, budget, free = self._axes()
        cut = self._cut(shape)
        axes = budget + free + grain
        kept = units.reshape([cut[i] for i in budget + free] + [1] * len(grain))
        return kept.permute([axes.index(i) for i in range(8)]).expand(cut).reshape(shape).contiguous()

    def why_invalid(self, mask: Mask) -> list[str]:
        cut = mask.keep.reshape(self._cut(tuple(mask.keep.shape)))
        grain, budget, _ = self._axes()
        bad = []
        if grain and not torch.equal(cut.amax(grain), cut.amin(grain)):
            bad.append(f"some units (axes {self.grain!r}) are half alive")
        if budget:
            counts = cut.sum([i for i in range(8) if i not in budget])
            if counts.min() != counts.max():
                bad.append(
                    f"budgets (axes {self.budget!r}) run from {int(counts.min())} to {int(counts.max())} weights"
                )
        return bad


def require(structure: Structure, shape: Shape, on: str, groups: int = 1) -> None:
    """Raise `DoesNotFit` with every reason why the structure cannot be laid on this shape."""
    if reasons := structure.why_not(shape, groups):
        raise DoesNotFit(f"structure {str(structure)!r}", on, reasons)
