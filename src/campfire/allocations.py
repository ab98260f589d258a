"""Allocations: how one target sparsity is shared among layers (floor 0: no torch).

An allocation is a function ``(shapes, sparsity, saliency) -> {layer: sparsity}``; ``shapes`` maps layer names to
[K, C, R, S] and ``saliency()`` gives each layer's scores as a flat numpy array (only `global_` asks for them).
The total over all layers is the target, except where a layer would die: at least one weight in each stays.
"""

import math
import warnings
from collections.abc import Callable, Mapping

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
    """One ranking of single weights over all layers decides each layer's share; every layer keeps one weight or more."""
    scores = saliency()
    total = sum(a.size for a in scores.values())
    drop = math.floor(sparsity * total + 1e-9)
    if drop == 0:
        return dict.fromkeys(shapes, 0.0)
    cut = np.partition(np.concatenate([scores[n].ravel() for n in shapes]), drop - 1)[drop - 1]
    return {n: min(float((scores[n] <= cut).mean()), 1 - 1 / scores[n].size) for n in shapes}


def given(densities: Mapping[str, float]) -> Allocation:
    """A final sparsity for each named layer (Mao et al., ClickTrain's per-layer lists); the target is not used.

    Raises:
        UsageError: the names are not exactly those of the pruned layers.
    """

    def allocate(shapes: Mapping[str, Shape], sparsity: float, saliency: object = None) -> dict[str, float]:
        missing, extra = sorted(set(shapes) - set(densities)), sorted(set(densities) - set(shapes))
        if missing or extra:
            raise UsageError(
                "the list of sparsities must name exactly the pruned layers; "
                f"missing: {', '.join(missing) or 'none'}; not pruned: {', '.join(extra) or 'none'}"
            )
        return {n: float(densities[n]) for n in shapes}

    return allocate


KNOWN: dict[str, Allocation] = {"uniform": uniform, "erk": erk, "global": global_}


def named(name: str) -> Allocation:
    """An allocation by name: ``uniform``, ``erk`` or ``global``."""
    if name not in KNOWN:
        raise UnknownName("allocation", name, KNOWN)
    return KNOWN[name]
