"""A layer under masks. The weight itself stays the user's ordinary Parameter."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.mask import Mask, view4
from campfire.pruner.rules import Target
from campfire.scores import Score
from campfire.sparsity import LayerSparsity
from campfire.structures import Structure


@dataclass(eq=False)
class PrunedLayer:
    """One pruned layer: its structure, its score, and its mask."""

    target: Target
    structure: Structure
    score: Score
    requested: float = 0.0
    mask: Mask | None = None
    _factor: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        return self.target.module.weight

    @property
    def keep(self) -> Tensor:
        """bool [K, C, R, S]; everything, before the first update."""
        if self.mask is not None:
            return self.mask.keep
        return torch.ones(self.target.shape, dtype=torch.bool, device=self.weight.device)

    @property
    def kept(self) -> int:
        return self.weight.numel() if self.mask is None else int(self.mask.keep.count_nonzero())

    def set(self, mask: Mask) -> None:
        """Take a new mask."""
        self.mask, self._factor = mask, None

    def factor(self, like: Tensor | None = None) -> Tensor | None:
        """The mask as 0.0 and 1.0 with the weight's dtype, device and memory format; None while nothing is dead.

        Multiplying by floats is what the CPU library does fast: about 40 times faster than by bools.
        """
        if self.mask is None:
            return None
        like = self.weight if like is None else like
        cached = self._factor
        if cached is None or cached.dtype != like.dtype or cached.device != like.device:
            self._factor = cached = torch.empty_like(like.detach()).copy_(self.mask.keep.view(like.shape))
        return cached

    def importance(self) -> Tensor:
        """The score of every weight, float32 [K, C, R, S]."""
        weight, grad = view4(self.weight.detach()), self.weight.grad
        return self.score(weight, None if grad is None else view4(grad)).float()

    def zero_dead(self, grad: Tensor) -> Tensor | None:
        """The gradient with zeros where the weight is dead; a hook on the weight."""
        factor = self.factor(grad)
        return None if factor is None else grad * factor

    def report(self) -> LayerSparsity:
        """What was asked and what is true."""
        keep, t = self.keep, self.target
        kept = int(keep.count_nonzero())
        return LayerSparsity(
            name=t.name,
            shape=t.shape,
            structure=str(self.structure),
            requested=self.requested,
            true=1 - kept / keep.numel(),
            kept_kernels=int(keep.flatten(2).any(2).count_nonzero()),
            kernels=t.shape[0] * t.shape[1],
            kept_weights=kept,
            weights=keep.numel(),
            conv=t.conv,
        )


def for_layer(score: Score, name: str) -> Score:
    """The score bound to a layer, where it depends on which layer it is."""
    bind = getattr(score, "for_layer", None)
    return score if bind is None else bind(name)
