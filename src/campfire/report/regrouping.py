"""From any weights to blocks: what regrouping keeps of them, and how fast the blocks would run."""

import dataclasses
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from campfire.compress.compressing import best_layout
from campfire.errors import CheckpointError, DoesNotFit, UsageError
from campfire.kernels import Conv
from campfire.kernels.choice import PASSES
from campfire.kernels.cost import pace_of
from campfire.kernels.times import Case
from campfire.mask import Mask, view4
from campfire.packed import pack
from campfire.packed.tile import read_tile
from campfire.report.supports import Supports, single_weights
from campfire.structures import Structure, named
from campfire.structures.hrbp import HRBP

PEERS = {"unstructured": named("fine"), "kernel": named("kernel"), "vector": named("vector")}
WIDE = 16  # outputs of a tile that the block kernels take


@dataclass(frozen=True)
class LayerBlocks:
    """One layer in blocks. Sums of |w| are of what each structure keeps with the same number of weights."""

    name: str
    shape: tuple[int, ...]
    sparsity: float  # true
    kept: int
    sums: dict[str, float]  # blocks, unregrouped, unstructured, kernel, vector, all
    dead_kernels: int
    kernels: int
    inside: int  # weights of the blocks that are not zero before
    speed: dict[str, float] | None  # of each pass over the dense library; None: no block kernel
    plan_seconds: float = 0.0
    reason: str = ""  # why it stays dense
    remark: str = ""  # what is worth knowing of its blocks
    requested: float = 0.0  # the sparsity
    mask: Mask | None = None
    supports: dict[str, Supports] | None = None  # of blocks, and of regrouped single weights

    def told(self) -> dict[str, Any]:
        """Plain numbers."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("mask", "supports")}
        if self.supports is not None:
            found["supports"] = {name: x.told() for name, x in self.supports.items()}
        return {**found, "share": _shares([self])}


def regroup_layer(
    name: str, weight: Tensor, structure: HRBP, sparsity: float | None, elementwise: bool = False
) -> LayerBlocks:
    """A layer's weight, or mask, [K, C, R, S] or [K, C] in blocks of ``structure``; its own sparsity where none is given."""
    score = view4(weight.detach()).float().abs()
    shape, alive = tuple(score.shape), torch.ones(view4(weight).shape, dtype=torch.bool)
    wanted = 1 - int(score.count_nonzero()) / score.numel() if sparsity is None else sparsity
    reasons = structure.why_not(shape)
    if reasons or wanted <= 0 or float(score.max()) == 0:
        reason = "; ".join(reasons) or ("all of it is zero" if wanted > 0 else "nothing in it is to be zero")
        return LayerBlocks(name, shape, 0.0, score.numel(), {}, 0, shape[0] * shape[1], 0, None, reason=reason)
    plain = dataclasses.replace(structure, order="none", inputs="neighbours")
    found: dict[str, Tensor] = {}
    start = time.perf_counter()
    count, plan = structure.count(shape, wanted), structure.plan(score, wanted)
    seconds = time.perf_counter() - start
    found["blocks"] = keep = structure.project(score, count, plan, alive)
    found["unregrouped"] = plain.project(score, count, plain.plan(score, wanted), alive)
    found |= {peer: x.project(score, count, {}, alive) for peer, x in PEERS.items()}
    supports = None
    if elementwise:
        found["elementwise"], order = single_weights(score, structure, 1 - count / score.numel())
        orders = {"blocks": plan["order"], "elementwise": order}
        if shape[2:] != (1, 1):  # one tap: nothing to shatter
            supports = {x: Supports.of_mask(found[x], order, structure.rows) for x, order in orders.items()}
    sums = {x: float(score[mask].sum(dtype=torch.float64)) for x, mask in found.items()}
    return LayerBlocks(
        name=name,
        shape=shape,
        sparsity=1 - count / score.numel(),
        kept=count,
        sums={**sums, "all": float(score.sum(dtype=torch.float64))},
        dead_kernels=int((~keep.flatten(2).any(2)).sum()),
        kernels=shape[0] * shape[1],
        inside=int((score[keep] != 0).sum()),
        speed=predicted(Mask(keep, plan)),
        plan_seconds=seconds,
        remark="; ".join(structure.remarks(shape, wanted)),
        requested=wanted,
        mask=Mask(keep, plan),
        supports=supports,
    )


def predicted(mask: Mask) -> dict[str, float] | None:
    """Each pass over the dense library by arithmetic alone: rho / density, rho of the cost model's block kernels.

    None where no tile has 16 outputs. What bounds small layers, reading and writing activations, is not counted.
    """
    if best_layout(mask) == "csr":
        return None
    packed = pack(torch.zeros(mask.keep.shape), mask, best_layout(mask))
    if read_tile(packed.parts["tile"])[0] % WIDE:
        return None
    case = Case(packed, Conv(), (1, *mask.keep.shape[1:]), torch.float32)
    density = 1 - mask.sparsity
    return {name: pace_of(case, "blocks", name).rho / density for name in PASSES}


def regroup(
    weights: Mapping[str, Tensor],
    structure: str | Structure,
    sparsity: float | None = None,
    elementwise: bool = False,
) -> dict[str, Any]:
    """What is kept of some layers' weights by blocks, beside other structures of the same number of weights.

    Args:
        weights: by layer name, [K, C, R, S] or [K, C]; zeros are dead. Masks will do.
        structure: ``"hrbp"`` or ``"hrbp++"`` with options.
        sparsity: of every layer; None: each layer's own fraction of zeros.
        elementwise: regroup single weights as well, and tell how both lie in the backward pass (``supports``).

    Returns:
        ``share``: sums of |w| over that of the largest weights (``blocks``, ``unregrouped``, ``kernel``, ``vector``),
        ``sparsity_true``, ``dead_kernels`` of ``kernels``, ``density_inside`` (of the blocks, before), ``speed`` of each
        pass (weights counted equally), all over the layers in blocks; and ``layers``.

    Raises:
        UsageError: not such a structure, or a sparsity outside [0, 1).
        DoesNotFit: no layer can be cut into such blocks.
        CheckpointError: a weight is no finite number.

    >>> found = regroup({"conv": torch.randn(64, 16, 3, 3)}, "hrbp", 0.75)
    >>> found["sparsity_true"], found["share"]["kernel"] > found["share"]["blocks"] > found["share"]["unregrouped"]
    (0.75, True)
    """
    blocks = as_blocks(structure)
    return told(regrouped(weights, blocks, sparsity, elementwise), blocks, sparsity)


def as_blocks(structure: str | Structure) -> HRBP:
    """The structure, by name or as it is; raise `UsageError` unless it has blocks over regrouped outputs."""
    found = named(structure) if isinstance(structure, str) else structure
    if not isinstance(found, HRBP):
        raise UsageError(f"regrouping is for the structures hrbp and hrbp++; got {str(found)!r}")
    return found


def regrouped(
    weights: Mapping[str, Tensor], structure: HRBP, sparsity: float | None = None, elementwise: bool = False
) -> list[LayerBlocks]:
    """As `regroup`, with the masks."""
    if sparsity is not None and not 0 <= sparsity < 1:
        raise UsageError(f"a sparsity is a fraction of zeros in [0, 1); got {sparsity}")
    if broken := [name for name, weight in weights.items() if not bool(weight.isfinite().all())]:
        raise CheckpointError(
            f"the weights of {', '.join(broken)} hold NaN or infinity; take a checkpoint from before that"
        )
    layers = [regroup_layer(name, weight, structure, sparsity, elementwise) for name, weight in weights.items()]
    cut = [x for x in layers if not x.reason]
    if not cut and sparsity is None and not any(bool((x == 0).any()) for x in weights.values()):
        raise UsageError("no weight is zero, so there is no sparsity to keep; give one (--sparsity)")
    if not cut:
        raise DoesNotFit(f"structure {str(structure)!r}", "these weights", [f"{x.name}: {x.reason}" for x in layers])
    return layers


def told(layers: list[LayerBlocks], structure: HRBP, sparsity: float | None) -> dict[str, Any]:
    """What `regroup` returns."""
    return {
        "structure": str(structure),
        "block": [structure.rows, structure.channels],
        "sparsity_requested": sparsity,
        **_totals([x for x in layers if not x.reason]),
        "layers": [x.told() for x in layers],
    }


def _totals(layers: list[LayerBlocks]) -> dict[str, Any]:
    weights, kept = sum(math.prod(x.shape) for x in layers), sum(x.kept for x in layers)
    with_supports = [x.supports for x in layers if x.supports is not None]
    return {
        "sparsity_true": 1 - kept / weights,
        "share": _shares(layers),
        "dead_kernels": sum(x.dead_kernels for x in layers),
        "kernels": sum(x.kernels for x in layers),
        "density_inside": sum(x.inside for x in layers) / kept,
        "plan_seconds": sum(x.plan_seconds for x in layers),
        "speed": {
            name: weights / sum(math.prod(x.shape) / (x.speed[name] if x.speed else 1.0) for x in layers)
            for name in PASSES
        },
        **({"supports": _supports(with_supports)} if with_supports else {}),
    }


def _supports(layers: list[dict[str, Supports]]) -> dict[str, Any]:
    return {name: Supports.total([x[name] for x in layers]).told() for name in layers[0]}


def _shares(layers: list[LayerBlocks]) -> dict[str, float]:
    """Sums of |w| over that of the same number of single weights; and what those hold of all."""
    cut = [x.sums for x in layers if x.sums]
    if not cut:
        return {}
    total = {name: sum(x[name] for x in cut) for name in cut[0]}
    best = max(total["unstructured"], 1e-300)
    shares = {name: total[name] / best for name in total if name not in ("unstructured", "all")}
    return {**shares, "unstructured_of_all": total["unstructured"] / total["all"]}
