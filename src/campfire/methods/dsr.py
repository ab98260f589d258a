"""DSR: dynamic sparse reparameterisation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from campfire.errors import UsageError
from campfire.methods.base import Host, Shape, Stage
from campfire.methods.regrow import Regrow, drawn, elsewhere, magnitudes
from campfire.selection import keep_best

MOST = 1 - 1e-9  # the highest sparsity that is asked of a layer; of one unit nothing would be left at it


@dataclass(frozen=True)
class DSR(Regrow):
    """At every update what is below a threshold common to all layers dies, and as much grows, shared anew among the layers.

        dies: |w| < H;  then H / 2 if more than 1.1 N died, 2 H if less than 0.9 N
        grows: at random; layer l gets the share nnz_l / sum of nnz of what died

    N is ``fraction`` of what lives, or ``number`` weights. Updates become rarer: 8, 4, 2, 1 in the quarters of the schedule.
    In a structure a unit dies by its weights' share in its score (kernels: the paper's kernel mode). The budget of all layers
    together stays exact where units are single weights, and is never exceeded: what is left is less than a unit.
    When: nobody knows how the budget should be shared among layers.
    Source: Mostafa and Wang 2019, Parameter Efficient Training of Deep CNNs by Dynamic Sparse Reparameterization.
    """

    name = "dsr"
    fraction: float = 0.08
    updates: int = 230
    threshold: float = 1e-3
    number: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold <= 0 or self.number < 0:
            raise UsageError(f"threshold is > 0 and number >= 0; got {self.threshold} and {self.number}")

    def adapted(self, threshold: float, died: int, wanted: float) -> float:
        """The next threshold.

        >>> [DSR().adapted(1e-3, died, 400_000) for died in (450_000, 350_000, 400_000)]
        [0.0005, 0.002, 0.001]
        """
        return threshold / 2 if died > 1.1 * wanted else threshold * 2 if died < 0.9 * wanted else threshold

    def passed(self, stage: Stage, epoch: float) -> float:
        """As `Regrow.passed`, slower in each quarter: the share of the updates that is over."""
        time = super().passed(stage, epoch)
        quarter = min(3, int(4 * time))
        return (sum(8 >> q for q in range(quarter)) + (8 >> quarter) * (4 * time - quarter)) / 15

    def growth(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        return drawn(pruner, stage)

    def change(self, pruner: Host, stage: Stage, epoch: float) -> None:
        target, threshold = stage.schedule(epoch), self.memory.get("threshold", self.threshold)
        saliencies, keeps = pruner.saliencies(stage, magnitudes(pruner, stage)), pruner.keeps(stage)
        survivors = {n: _above(saliencies[n].view_as(k), threshold, k) for n, k in keeps.items()}
        left = {n: int(x.count_nonzero()) for n, x in survivors.items()}
        living = sum(int(k.count_nonzero()) for k in keeps.values())
        wanted = self.number or self.fraction * living
        self.memory["threshold"] = self.adapted(threshold, living - sum(left.values()), wanted)
        budget = sum(pruner.budget(stage, n, stage.target_of(n, target)) for n in keeps)
        layers = settled(pruner, stage, shared(left, {n: k.numel() for n, k in keeps.items()}, budget), budget)
        growth = elsewhere(self.explored_last(pruner, stage), keeps, survivors)
        pruner.regrow(stage, target, survivors, growth, layers, regroup=self.regroup)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "threshold": self.memory.get("threshold", self.threshold)}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        threshold = float(state["threshold"])
        if not 0 < threshold < float("inf"):
            raise ValueError(f"a threshold of {threshold}")
        super().load_state_dict(state, shapes)
        self.memory["threshold"] = threshold


def _above(saliency: Tensor, threshold: float, keep: Tensor) -> Tensor:
    """What lives and is not below the threshold; the best weight at least."""
    survivors = keep & (saliency >= threshold)
    return survivors if bool(survivors.any()) else keep_best(saliency.flatten(), 1, keep.flatten()).view_as(keep)


def shared(left: Mapping[str, int], sizes: Mapping[str, int], budget: int) -> dict[str, float]:
    """``budget`` weights in proportion to what is left of each layer; a full layer leaves its part to the others.

    >>> shared({"a": 1, "b": 3}, {"a": 10, "b": 10}, 8)
    {'a': 2.0, 'b': 6.0}
    >>> shared({"a": 1, "b": 3}, {"a": 10, "b": 5}, 8)
    {'b': 5.0, 'a': 3.0}
    """
    full: dict[str, float] = {}
    while True:
        free = {n: x for n, x in left.items() if n not in full}
        rest = budget - sum(full.values())
        counts = {n: rest * x / sum(free.values()) for n, x in free.items()}
        over = {n: float(sizes[n]) for n, x in counts.items() if x > sizes[n]}
        if not over:
            return {**full, **counts}
        full |= over


def settled(pruner: Host, stage: Stage, wanted: Mapping[str, float], budget: int) -> dict[str, float]:
    """Sparsities that structures can hold, near these numbers of weights, that add up to ``budget`` weights or just below."""
    least = {n: _least(pruner, stage, n) for n in wanted}
    sparsities = {n: pruner.sparsity_for(stage, n, max(least[n], int(x + 1e-6))) for n, x in wanted.items()}
    counts = {n: pruner.budget(stage, n, s) for n, s in sparsities.items()}
    while sum(counts.values()) > budget:  # a layer that should have kept less than a unit
        name = max(wanted, key=lambda n: counts[n] - wanted[n] if counts[n] > least[n] else -math.inf)
        if counts[name] == least[name]:
            break
        sparsities[name] = pruner.sparsity_for(stage, name, counts[name] - 1)
        counts[name] = pruner.budget(stage, name, sparsities[name])
    return _filled(pruner, stage, wanted, sparsities, counts, budget)


def _least(pruner: Host, stage: Stage, name: str) -> int:
    """The fewest weights, but some, that a layer can keep in its structure."""
    low, high = 0.0, MOST
    if (count := pruner.budget(stage, name, high)) > 0:
        return count
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if pruner.budget(stage, name, middle) > 0 else (low, middle)
    return pruner.budget(stage, name, low)


def _filled(
    pruner: Host,
    stage: Stage,
    wanted: Mapping[str, float],
    sparsities: dict[str, float],
    counts: dict[str, int],
    budget: int,
) -> dict[str, float]:
    """One more unit here and there, until none fits."""
    moved = True
    while moved:
        moved = False
        for name in sorted(wanted, key=lambda n: counts[n] - wanted[n]):
            fewer = max(0.0, sparsities[name] - 1e-7)
            count = pruner.budget(stage, name, fewer)
            if counts[name] < count <= counts[name] + budget - sum(counts.values()):
                sparsities[name], counts[name], moved = fewer, count, True
    return sparsities
