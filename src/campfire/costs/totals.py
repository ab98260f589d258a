"""Sums over layers, and ratios of sums."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from campfire.costs.energy import Energy
from campfire.costs.grains import GRAINS
from campfire.costs.layer import LayerCost
from campfire.costs.references import References
from campfire.costs.storage import VALUE_BITS


def totals(layers: Sequence[LayerCost], energy: Energy) -> dict[str, Any]:
    """Plain numbers of some layers together, for one image; ``activity`` is None where no images were counted.

    ``imbalance`` is how many times longer an array takes than if all its elements always had work.
    """
    weights, bits = sum(r.weights for r in layers), sum(r.mao_bits for r in layers)
    names = ("living", "macs", "sparse_macs", "file_bytes", "dense_bytes")
    sums = {name: sum(getattr(r, name) for r in layers) for name in names}
    return {
        "weights": weights,
        **sums,
        "flops": 2 * sums["macs"],
        "sparse_flops": 2 * sums["sparse_macs"],
        "sparsity": {grain: _dead(layers, grain) for grain in GRAINS},
        "mao_ratio": _ratio(bits, VALUE_BITS * weights),
        "file_ratio": _ratio(sums["file_bytes"], sums["dense_bytes"]),
        "imbalance": {way: _slowed(layers, way) for way in ("outputs", "inputs")},
        "activity": _activity(layers, energy),
    }


def _dead(layers: Sequence[LayerCost], grain: str) -> float:
    every, living = (sum(r.units[grain][i] for r in layers) for i in (0, 1))
    return 1 - _ratio(living, every)


def _slowed(layers: Sequence[LayerCost], way: str) -> float:
    return _ratio(sum(r.work * r.imbalance[way] for r in layers), sum(r.work for r in layers))


def _activity(layers: Sequence[LayerCost], energy: Energy) -> dict[str, Any] | None:
    live = [r.activity for r in layers if r.activity is not None]
    if not live:
        return None
    nothing = References(0, 0, 0)
    own, dense = sum((x.references for x in live), nothing), sum((x.dense_references for x in live), nothing)
    moved = sum(r.moved_bytes for r in layers)
    return {
        "activation_density": _ratio(sum(x.active for x in live), sum(x.inputs for x in live)),
        "references": asdict(own),
        "dense_references": asdict(dense),
        "references_ratio": asdict(References(*map(_ratio, own.counts, dense.counts))),
        "moved_bytes": moved,
        "bytes_per_product": _ratio(moved, own.products),
        "energy_pj": energy.spent(own.products, own.row_merge, moved),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
