"""Sharing: how the target of a phase is split among its layers."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from campfire import allocations
from campfire.allocations import Allocation
from campfire.errors import UsageError
from campfire.pruner.layer import PrunedLayer
from campfire.pruner.phases import Stage


def allocation_of(
    given: str | Allocation | Mapping[str, float], stages: Sequence[Stage], layers: Mapping[str, PrunedLayer]
) -> Allocation:
    """The allocation by its name, or of a list of sparsities, whose mistakes show now and not when the era starts."""
    if isinstance(given, str):
        return allocations.named(given)
    if not isinstance(given, Mapping):
        return given
    if len(stages) > 1:
        raise UsageError("a list of sparsities is for one phase; use 'uniform', 'erk' or 'global' with several")
    stages[0].goals = goals(allocations.given(given), stages[0], layers)
    return allocations.given(given)


def goals(
    allocate: Allocation,
    stage: Stage,
    layers: Mapping[str, PrunedLayer],
    scores: Mapping[str, Tensor] | None = None,
    target: float | None = None,
) -> dict[str, float]:
    """The sparsity of each layer of a phase at ``target``: by default the final one."""
    shapes = {n: layers[n].target.shape for n in stage.structures}
    shares = allocate(
        shapes,
        stage.schedule.target if target is None else target,
        lambda: {n: s.cpu().numpy() for n, s in saliencies(stage, layers, scores).items()},
    )
    for name in shapes:
        if name not in shares or not 0 <= shares[name] < 1:
            raise UsageError(
                f"an allocation gives every layer a sparsity in [0, 1); layer {name!r} got {shares.get(name)}"
            )
    return {name: float(shares[name]) for name in shapes}


def forecast(allocate: Allocation, stage: Stage, layers: Mapping[str, PrunedLayer]) -> dict[str, float]:
    """The final sparsity of each layer of a phase, before there are scores: an allocation that reads them gives the target."""
    if allocate is allocations.global_:
        return dict.fromkeys(stage.structures, stage.schedule.target)
    return stage.goals or goals(allocate, stage, layers)


def saliencies(
    stage: Stage, layers: Mapping[str, PrunedLayer], scores: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Every weight's share in its unit's score for each layer of a phase, flat; 0 where dead.

    Args:
        scores: [K, C, R, S] for each layer, instead of the pruner's.
    """
    found = {}
    for name, structure in stage.structures.items():
        layer, plan = layers[name], stage.plans.get(name, {})
        score = (layer.importance() if scores is None else scores[name]) * layer.keep
        found[name] = structure.saliency(score, {k: v.to(score.device) for k, v in plan.items()}).flatten()
    return found
