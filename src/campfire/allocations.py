"""Allocations: how one target sparsity is shared among layers (floor 0: no torch).

An allocation is a function ``(shapes, sparsity, saliency) -> {layer: sparsity}``; ``shapes`` maps layer names to
[K, C, R, S] and ``saliency()`` gives each layer's scores as a flat numpy array (only `global_` asks for them).
The total over all layers is the target, except where a layer would die: at least one weight in each stays.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from campfire.errors import Clamped, UnknownName, UsageError

Shape = tuple[int, ...]
Allocation = Callable[[Mapping[str, Shape], float, Callable[[], Mapping[str, np.ndarray]]], dict[str, float]]


def uniform(shapes: Mapping[str, Shape], sparsity: float, saliency: object = None) -> dict[str, float]:
    """Every layer gets the target: what the Campfire paper does."""
    return dict.fromkeys(shapes, sparsity)


def erk(shapes: Mapping[str, Shape], sparsity: float, saliency: object = None) -> dict[str, float]:
    """Erdos-Renyi-Kernel (RigL): density ~ (K + C + R + S) / (K C R S).

    A layer that would exceed 1 stays dense, with a `Clamped` warning, and the others get less, so that the total is met.

    >>> {n: round(s, 3) for n, s in erk({"a": (16, 16, 3, 3), "b": (64, 64, 3, 3)}, 0.8).items()}
    {'a': 0.249, 'b': 0.834}
    """
    weights = {n: math.prod(s) for n, s in shapes.items()}
    raw = {n: sum(s) / math.prod(s) for n, s in shapes.items()}
    full: set[str] = set()
    while True:
        free = [n for n in shapes if n not in full]
        if not free:
            return dict.fromkeys(shapes, 0.0)
        budget = (1 - sparsity) * sum(weights.values()) - sum(weights[n] for n in full)
        scale = budget / sum(raw[n] * weights[n] for n in free)
        over = {n for n in free if raw[n] * scale > 1}
        if not over:
            if full and sparsity > 0:
                names = ", ".join(n for n in shapes if n in full)
                warnings.warn(
                    f"erk gives these layers a density above 1; they stay dense, and the others get less: {names}",
                    Clamped,
                    stacklevel=2,
                )
            return {n: 0.0 if n in full else 1 - raw[n] * scale for n in shapes}
        full |= over


def global_(
    shapes: Mapping[str, Shape], sparsity: float, saliency: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """One ranking of single weights over all layers decides each layer's share; every layer keeps one weight or more.

    Of equal scores the first layers' go first, as many as are still to go.

    >>> scores = {"a": np.array([0.0, 2.0, 0.0]), "b": np.array([0.0, 1.0, 0.0, 3.0])}
    >>> {n: round(s, 3) for n, s in global_({"a": (3,), "b": (4,)}, 3 / 7, lambda: scores).items()}
    {'a': 0.667, 'b': 0.25}
    """
    scores = saliency()
    total = sum(a.size for a in scores.values())
    drop = math.floor(sparsity * total + 1e-9)
    if drop == 0:
        return dict.fromkeys(shapes, 0.0)
    cut = np.partition(np.concatenate([scores[n].ravel() for n in shapes]), drop - 1)[drop - 1]
    below = {n: np.count_nonzero(scores[n] < cut) for n in shapes}
    left, shares = drop - sum(below.values()), {}
    for n in shapes:
        tied = min(left, np.count_nonzero(scores[n] == cut))
        left -= tied
        shares[n] = min(float(below[n] + tied) / scores[n].size, 1 - 1 / scores[n].size)
    return shares


def ramp(shapes: Mapping[str, Shape], sparsity: float, saliency: object = None) -> dict[str, float]:
    """More with depth, as in ClickTrain's lists: the share of living kernels falls evenly to 0.4 of the first layer's.

    Kernels of more than 4 taps count with the 4 that a pattern keeps, so that 1x1 layers keep more. The total is the target;
    what would exceed a density of 1 stays dense.

    >>> {n: round(s, 3) for n, s in ramp({"a": (8, 8, 3, 3), "b": (8, 8, 3, 3), "c": (8, 8, 1, 1)}, 0.8).items()}
    {'a': 0.765, 'b': 0.836, 'c': 0.789}
    """
    weights = {n: math.prod(s) for n, s in shapes.items()}
    fall = {n: 1 - 0.6 * i / max(1, len(shapes) - 1) for i, n in enumerate(shapes)}
    part = {n: fall[n] * min(1.0, 4 / math.prod(s[2:])) for n, s in shapes.items()}
    wanted, low, high = (1 - sparsity) * sum(weights.values()), 0.0, 1 / min(part.values())
    for _ in range(100):
        middle = (low + high) / 2
        kept = sum(w * min(1.0, middle * part[n]) for n, w in weights.items())
        low, high = (middle, high) if kept < wanted else (low, middle)
    return {n: max(0.0, 1 - high * share) for n, share in part.items()}


@dataclass(frozen=True)
class Given:
    """A list of sparsities as an allocation; a class, so that a pruner that holds it can be pickled."""

    sparsities: Mapping[str, float]

    def __call__(self, shapes: Mapping[str, Shape], sparsity: float, saliency: object = None) -> dict[str, float]:
        missing, extra = sorted(set(shapes) - set(self.sparsities)), sorted(set(self.sparsities) - set(shapes))
        if missing or extra:
            raise UsageError(
                "the list of sparsities must name exactly the pruned layers; "
                f"missing: {', '.join(missing) or 'none'}; not pruned: {', '.join(extra) or 'none'}"
            )
        return {n: self.sparsities[n] for n in shapes}


def given(densities: Mapping[str, float]) -> Allocation:
    """A final sparsity for each named layer (Mao et al., ClickTrain's per-layer lists); the target is not used.

    Raises:
        UsageError: by the allocation, where the names are not exactly those of the pruned layers.
    """
    return Given({n: float(x) for n, x in sorted(densities.items())})


KNOWN: dict[str, Allocation] = {"uniform": uniform, "erk": erk, "global": global_, "ramp": ramp}


def named(name: str) -> Allocation:
    """An allocation by name: ``uniform``, ``erk``, ``global`` or ``ramp``."""
    if name not in KNOWN:
        raise UnknownName("allocation", name, KNOWN)
    return KNOWN[name]
