"""A layer under masks. The weight itself stays the user's ordinary Parameter."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from campfire.errors import CampfireError, UsageError
from campfire.mask import Mask, view4
from campfire.native import masks
from campfire.pruner.rules import Target
from campfire.scores import Score
from campfire.selection import far
from campfire.sparsity import LayerSparsity
from campfire.structures import Structure, books
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
    cached_order: Tensor | None = None
    watched: Callable[[], bool] | None = None
    dense_grad: Tensor | None = None  # of this step, with that of dead weights, where a method asked for it

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
        self._take(mask, self.weight.numel() if mask is None else int(mask.keep.count_nonzero()))

    def _take(self, mask: Mask | None, kept: int) -> None:
        self._mask, self.kept = mask, kept
        self.forget()

    def forget(self) -> None:
        """Drop what is as large as the weight and can be made again."""
        self.cached_factor = self.cached_order = None

    def stamp(self) -> int:
        """A number that changes with the mask (while somebody holds the old one)."""
        return id(self._mask)

    @property
    def keep(self) -> Tensor:
        """bool [K, C, R, S]; everything, before the first update."""
        if (mask := self.mask) is not None:
            return mask.keep
        return torch.ones(self.target.shape, dtype=torch.bool, device=self.weight.device)

    def ordered(self) -> Tensor:
        """The mask's bools in the memory format of the weight, which native code walks through beside it."""
        weight = self.weight
        if weight.is_contiguous() or not masks.servable(weight):
            return self.keep.view(weight.shape).contiguous()
        cached = self.cached_order
        if cached is None or cached.device != weight.device:
            self.cached_order = cached = masks.channels_last(self.keep)
        return cached

    def factor(self) -> Tensor | None:
        """The mask as 0.0 and 1.0 with the weight's dtype, device and memory format; None while nothing is dead.

        Where native code does not serve: the CPU library multiplies by floats about 40 times faster than by bools. On a GPU the
        mask itself serves, which is a quarter as large.
        """
        if self._mask is None:
            return None
        if self.weight.is_cuda:
            return self.keep.view(self.weight.shape)
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

    def tighten(
        self,
        structure: Structure,
        plans: dict[str, Plan],
        goal: float,
        score: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> bool:
        """Make the mask anew for the requested sparsity, inside the previous one; whether it changed.

        Args:
            plans: the phase's plans by layer; this layer's is made here, for the final sparsity ``goal``, if it is not there.
            score: [K, C, R, S], instead of the layer's own.
            keep: the mask's bools, where they were made together with those of other layers.
        """
        name, self.structure = self.target.name, structure
        count = structure.count(self.target.shape, self.requested)
        if count >= self.kept:
            return False
        if count == 0:
            raise CampfireError(f"layer {name!r} would lose everything; lower its sparsity ({self.requested:.4f})")
        if keep is not None:
            mask = Mask(keep, self._planned(structure, plans, goal))
        else:
            score = self.importance() if score is None else score.float()
            plan = self._planned(structure, plans, goal, score)
            mask = Mask(structure.project(score, count, plan, self.keep), plan)
        # to count on a GPU would be to wait for it: `Pruner.verify` does, at the end of an era
        self._take(mask, count if far(mask.keep.device) else int(mask.keep.count_nonzero()))
        return True

    def select(
        self, structure: Structure, plans: dict[str, Plan], goal: float, sparsity: float, score: Tensor
    ) -> tuple[Tensor, ...]:
        """The parts of the mask that `tighten` would make; the plan is decided, the mask stays."""
        score = score.float()
        plan = self._planned(structure, plans, goal, score)
        return structure.parts(score, min(structure.count(self.target.shape, sparsity), self.kept), plan, self.keep)

    def _planned(self, structure: Structure, plans: dict[str, Plan], goal: float, score: Tensor | None = None) -> Plan:
        """The layer's plan on its device, made from the living where there is none; by the layer's own score if none is given."""
        name = self.target.name
        if name not in plans:
            plans[name] = structure.plan((self.importance() if score is None else score) * self.keep, goal)
        return {k: v.to(self.weight.device) for k, v in plans[name].items()}

    def regrow(
        self,
        structure: Structure,
        plans: dict[str, Plan],
        goal: float,
        survivors: Tensor,
        growth: Tensor,
        regroup: bool,
    ) -> bool:
        """Make the mask anew for the requested sparsity, wherever the previous one was; whether it changed.

        Survivors score between 1 and 2 by |w|, all others below 1 by ``growth``: so survivors live on, and in a unit that is
        partly theirs the number of them decides.

        Args:
            survivors: bool [K, C, R, S].
            growth: >= 0, [K, C, R, S].
            regroup: let the structure plan anew, from these scores and the plan before.
        """
        name, self.structure = self.target.name, structure
        count, size, alive = structure.count(self.target.shape, self.requested), self.weight.numel(), self.keep
        if count == 0:
            raise CampfireError(f"layer {name!r} would lose everything; lower its sparsity ({self.requested:.4f})")
        if count == size == self.kept or (count == self.kept and torch.equal(survivors, alive)):
            return False
        score = torch.where(survivors, 1 + _to_one(view4(self.weight.detach()).abs()), 0.999 * _to_one(growth))
        if name not in plans:
            plans[name] = structure.plan(score, goal)
        elif regroup and plans[name]:
            plans[name] = structure.replan(score, goal, plans[name])
        plan = {k: v.to(alive.device) for k, v in plans[name].items()}
        keep = structure.project(score, count, plan, torch.ones_like(alive))
        self.mask = Mask(keep, plan)
        return not torch.equal(keep, alive)

    def hook(self, watched: Callable[[], bool] | None = None) -> RemovableHandle:
        """From now on gradients are zero where the weight is dead, as they arrive; also once a frozen weight trains again.

        Args:
            watched: whether the gradient that arrives is wanted as it is; `dense_grad` then holds it.
        """
        self.watched = watched
        weight = self.weight
        trains = weight.requires_grad
        handle = weight.requires_grad_(True).register_hook(self._masked)
        weight.requires_grad_(trains)
        return handle

    def _masked(self, grad: Tensor) -> Tensor | None:
        if self._mask is None:
            return None
        if self.watched is not None and self.watched():
            self._watch(grad.detach())
        found = masks.product(grad, self.ordered())
        if found is None and (factor := self.factor()) is not None:
            found = grad * factor
        return found

    def _watch(self, grad: Tensor) -> None:
        """Sum up the gradient of a step as autograd does, from where the loop zeroed it."""
        so_far = self.weight.grad
        begun = self.dense_grad is not None and so_far is not None and bool(so_far.any())
        self.dense_grad = self.dense_grad + grad if begun and self.dense_grad is not None else grad.clone()

    def gradient(self) -> Tensor:
        """The gradient of this step, of dead weights too where it was watched; float32, as the weight lies.

        Raises:
            UsageError: there is none.
        """
        if self.weight.grad is None:
            raise UsageError(
                f"the method goes by gradients, and layer {self.target.name!r} has none in this step: it is frozen, or the loss "
                f"does not depend on it; leave it dense by a rule, {{{self.target.name!r}: None}}"
            )
        if self.mask is None:
            return self.weight.grad.detach().float()
        dense = self.dense_grad
        return torch.zeros_like(self.weight, dtype=torch.float32) if dense is None else dense.float()

    def forecast(self, structure: Structure, sparsity: float) -> LayerSparsity:
        """What is asked at this sparsity, and what will be true; which kernels die is not known."""
        t, weights = self.target, self.weight.numel()
        kept, kernels = structure.count(t.shape, sparsity), t.shape[0] * t.shape[1]
        remark = "; ".join(structure.remarks(t.shape, sparsity))
        return LayerSparsity(
            t.name, t.shape, str(structure), sparsity, 1 - kept / weights, None, kernels, kept, weights, None, t.conv, (), remark
        )  # fmt: skip

    def report(self, final: float) -> LayerSparsity:
        """What was asked and what is true; ``final`` is the sparsity that it is to reach."""
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
            patterns=books.used(keep) if self.mask is not None and "book" in self.mask.plan else (),
            remark="; ".join(self.structure.remarks(t.shape, final)),
        )


def _to_one(x: Tensor) -> Tensor:
    """Values >= 0 on [0, 1], float32."""
    x = x.float()
    return x / x.max().clamp(min=torch.finfo(torch.float32).tiny)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and a.stride() == b.stride()


def for_layer(score: Score, name: str) -> Score:
    """The score bound to a layer, where it depends on which layer it is."""
    bind = getattr(score, "for_layer", None)
    return score if bind is None else bind(name)
