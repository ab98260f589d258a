"""A layer under masks. The weight itself stays the user's ordinary Parameter."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from campfire.errors import CampfireError, UsageError
from campfire.mask import Mask, view4
from campfire.pruner.rules import Target
from campfire.scores import Score
from campfire.sparsity import LayerSparsity
from campfire.structures import Structure
from campfire.structures.base import Plan


@dataclass(eq=False)
class PrunedLayer:
    """One pruned layer: its structure, its score, and its mask."""

    target: Target
    structure: Structure
    score: Score
    requested: float = 0.0
    kept: int = -1
    _mask: Mask | None = None
    cached_factor: Tensor | None = None

    def __post_init__(self) -> None:
        self.mask = None

    @property
    def weight(self) -> Tensor:
        return self.target.module.weight

    @property
    def mask(self) -> Mask | None:
        """The mask, on the weight's device; None while nothing is dead."""
        mask, device = self._mask, self.weight.device
        if mask is not None and mask.keep.device != device:
            self._mask = mask = Mask(mask.keep.to(device), {k: v.to(device) for k, v in mask.plan.items()})
        return mask

    @mask.setter
    def mask(self, mask: Mask | None) -> None:
        self._mask, self.cached_factor = mask, None
        self.kept = self.weight.numel() if mask is None else int(mask.keep.count_nonzero())

    def stamp(self) -> int:
        """A number that changes with the mask (while somebody holds the old one)."""
        return id(self._mask)

    @property
    def keep(self) -> Tensor:
        """bool [K, C, R, S]; everything, before the first update."""
        if (mask := self.mask) is not None:
            return mask.keep
        return torch.ones(self.target.shape, dtype=torch.bool, device=self.weight.device)

    def factor(self) -> Tensor | None:
        """The mask as 0.0 and 1.0 with the weight's dtype, device and memory format; None while nothing is dead.

        Multiplying by floats is what the CPU library does fast: about 40 times faster than by bools.
        """
        if self._mask is None:
            return None
        like, cached = self.weight, self.cached_factor
        if cached is None or not _alike(cached, like):
            self.cached_factor = cached = torch.empty_like(like.detach()).copy_(self._mask.keep.view(like.shape))
        return cached

    def importance(self) -> Tensor:
        """The score of every weight, float32 [K, C, R, S]."""
        weight, grad = self.weight.detach().float(), self.weight.grad
        score = self.score(view4(weight), None if grad is None else view4(grad.detach().float())).float()
        if tuple(score.shape) != self.target.shape:
            raise UsageError(
                f"a score has the shape of its weight; for layer {self.target.name!r} {self.target.shape} "
                f"it returned {tuple(score.shape)}"
            )
        return score

    def tighten(self, structure: Structure, plans: dict[str, Plan], goal: float) -> bool:
        """Make the mask anew for the requested sparsity, inside the previous one; whether it changed.

        Args:
            plans: the phase's plans by layer; this layer's is made here, for the final sparsity ``goal``, if it is not there.
        """
        name, self.structure = self.target.name, structure
        count = structure.count(self.target.shape, self.requested)
        if count >= self.kept:
            return False
        if count == 0:
            raise CampfireError(f"layer {name!r} would lose everything; lower its sparsity ({self.requested:.4f})")
        score, alive = self.importance(), self.keep
        if name not in plans:
            plans[name] = structure.plan(score * alive, goal)
        plan = {k: v.to(alive.device) for k, v in plans[name].items()}
        self.mask = Mask(structure.project(score, count, plan, alive), plan)
        return True

    def hook(self) -> RemovableHandle:
        """From now on gradients are zero where the weight is dead, as they arrive; also once a frozen weight trains again."""
        weight = self.weight
        trains = weight.requires_grad
        handle = weight.requires_grad_(True).register_hook(self._masked)
        weight.requires_grad_(trains)
        return handle

    def _masked(self, grad: Tensor) -> Tensor | None:
        factor = self.factor()
        return None if factor is None else grad * factor

    def report(self) -> LayerSparsity:
        """What was asked and what is true."""
        t, keep, weights = self.target, self.keep, self.weight.numel()
        return LayerSparsity(
            name=t.name,
            shape=t.shape,
            structure=str(self.structure),
            requested=self.requested,
            true=1 - self.kept / weights,
            kept_kernels=int(keep.flatten(2).any(2).count_nonzero()),
            kernels=t.shape[0] * t.shape[1],
            kept_weights=self.kept,
            weights=weights,
            conv=t.conv,
        )


def lost_outputs(layers: Iterable[PrunedLayer]) -> dict[str, str]:
    """The layers with outputs that no weight reaches, where the structure does not mean it; and how many there are."""
    lost = {}
    for layer in layers:
        if layer.structure.drops_outputs:
            continue
        outputs = layer.keep.view(torch.uint8).flatten(1).amax(1)  # any() of bools takes 50 times as long
        if dead := outputs.numel() - int(outputs.count_nonzero()):
            lost[layer.target.name] = f"{layer.target.name} ({dead} of {outputs.numel()})"
    return lost


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and a.stride() == b.stride()


def for_layer(score: Score, name: str) -> Score:
    """The score bound to a layer, where it depends on which layer it is."""
    bind = getattr(score, "for_layer", None)
    return score if bind is None else bind(name)
