"""Hosting: what a pruner lends to its method, beside `Pruner.update`."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from campfire import allocations
from campfire.allocations import Allocation
from campfire.mask import view4
from campfire.methods import Method
from campfire.pruner import sharing
from campfire.pruner.binding import Binding
from campfire.pruner.clock import Clock
from campfire.pruner.layer import PrunedLayer
from campfire.pruner.phases import Stage
from campfire.pruner.ranks import average
from campfire.pruner.zeroing import zero_dead_
from campfire.selection import keep_best


class Hosting:
    """The part of a pruner that methods see; `campfire.methods.Host` is its interface."""

    method: Method
    stages: list[Stage]
    layers: dict[str, PrunedLayer]
    _allocate: Allocation
    _clock: Clock
    _binding: Binding | None

    def batch(self, loss: Tensor, *inputs: Any) -> None:
        """Show the method a batch: its loss, before ``loss.backward()``, and what the model was given.

        Only ``grasp``, ``synflow`` and ``prunetrain`` look at it; for others a loop need not call it.
        """
        self.method.batch(self, loss, inputs)  # pyright: ignore[reportArgumentType]

    def penalty(self) -> Tensor | float:
        """The method's term for the loss; 0.0 where it has none."""
        return self.method.penalty(self)  # pyright: ignore[reportArgumentType]

    def lr_time(self, epochs: float, epoch: float | None = None) -> tuple[float, float]:
        """Where a learning-rate schedule over ``epochs`` stands, now or at ``epoch``: epochs passed, of how many.

        A method may rewind it.
        """
        return self.method.lr_time(self.stages, self._clock.epoch if epoch is None else epoch, epochs)

    @torch.no_grad()
    def select(self, stage: Stage, target: float, scores: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, ...]]:
        """The masks that `update` would make for ``target`` by these scores, as the masks whose intersection each of them is.

        Plans and the layers' shares of the target are decided by this; no mask changes.
        """
        stage.goals = stage.goals or sharing.goals(self._allocate, stage, self.layers, scores)
        return {
            n: self.layers[n].select(s, stage.plans, stage.goals[n], stage.target_of(n, target), scores[n])
            for n, s in stage.structures.items()
        }

    @torch.no_grad()
    def regrow(
        self,
        stage: Stage,
        target: float,
        survivors: Mapping[str, Tensor],
        growth: Mapping[str, Tensor],
        layers: Mapping[str, float] | None = None,
        regroup: bool = False,
    ) -> None:
        """Make the masks of a phase anew, not inside the previous ones, and exactly as large as asked; methods call this.

        Args:
            survivors: bool [K, C, R, S] for each layer: what lives on, if the structure lets it.
            growth: >= 0, [K, C, R, S] for each layer: by what the rest is chosen.
            layers: a sparsity for each layer, instead of the allocation's share of the target.
            regroup: make plans anew, where the structure has some.
        """
        changed = []
        for name, structure in stage.structures.items():
            layer = self.layers[name]
            layer.requested = stage.target_of(name, target) if layers is None else layers[name]
            goal = stage.goals[name] if layers is None else layers[name]
            if layer.regrow(structure, stage.plans, goal, survivors[name], growth[name], regroup):
                changed.append(layer)
        stage.applied, stage.updates = target, stage.updates + 1
        zero_dead_(changed, self._binding.optimizers if self._binding else (), grads=True)

    def saliencies(self, stage: Stage, scores: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Every weight's share in its unit's score for each layer of a phase, flat; 0 where dead."""
        return sharing.saliencies(stage, self.layers, scores)

    def survivors(self, stage: Stage, scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
        """The best ``counts`` of each layer's living weights, bool [K, C, R, S], in whole units as far as they go.

        Units that a plan decides are known to `Structure.project` alone, others to `Structure.saliency`.
        """
        found = {}
        for name, saliency in self.saliencies(stage, scores).items():
            structure, keep, plan = stage.structures[name], self.layers[name].keep, stage.plans.get(name)
            if plan:
                count = self.budget(stage, name, self.sparsity_for(stage, name, counts[name]))
                plan = {k: v.to(keep.device) for k, v in plan.items()}
                found[name] = structure.project(scores[name], min(count, int(keep.sum())), plan, keep)
            else:
                found[name] = keep_best(saliency, counts[name], keep.flatten()).view_as(keep)
        return found

    def shares(self, stage: Stage, target: float, scores: Mapping[str, Tensor]) -> dict[str, float]:
        """The sparsity of each layer at ``target`` by the allocation, which may look at these scores."""
        if self._allocate is allocations.global_:
            return sharing.goals(self._allocate, stage, self.layers, scores, target)
        stage.goals = stage.goals or sharing.goals(self._allocate, stage, self.layers, scores)
        return {name: stage.target_of(name, target) for name in stage.structures}

    def weights(self, stage: Stage) -> dict[str, Tensor]:
        """The weights of a phase's layers, as the model holds them."""
        return {name: self.layers[name].weight for name in stage.structures}

    def keeps(self, stage: Stage) -> dict[str, Tensor]:
        """bool [K, C, R, S] for each layer of a phase."""
        return {name: self.layers[name].keep for name in stage.structures}

    def gradients(self, stage: Stage) -> dict[str, Tensor]:
        """The loss's gradient in this step, [K, C, R, S] float32: of dead weights too, if the method wanted it, and then averaged
        over all ranks, for DDP averages what is masked already.

        Raises:
            UsageError: a layer has none.
        """
        found = {name: self.layers[name].gradient() for name in stage.structures}
        masked = [name for name in found if self.layers[name].mask is not None]
        found |= dict(zip(masked, average(found[n] for n in masked), strict=True))
        return {name: view4(self._unscaled(grad)) for name, grad in found.items()}

    def scaled(self, gradient: Tensor) -> Tensor:
        """What is to be added to a weight's ``grad`` before a step, with GradScaler's factor where that is still on it."""
        scale = self._binding and self._binding.gradient_scale
        return gradient if scale is None else gradient * scale.to(gradient.device)

    def _unscaled(self, gradient: Tensor) -> Tensor:
        scale = self._binding and self._binding.gradient_scale
        return gradient if scale is None else gradient / scale.to(gradient.device)

    def budget(self, stage: Stage, layer: str, sparsity: float) -> int:
        """How many weights of a layer live at this sparsity."""
        return stage.structures[layer].count(self.layers[layer].target.shape, sparsity)

    def sparsity_for(self, stage: Stage, layer: str, count: int) -> float:
        """The smallest sparsity at which ``count`` weights of a layer live, or fewer."""
        return stage.structures[layer].sparsity_of(self.layers[layer].target.shape, count)

    def average(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """The mean of each tensor over all ranks."""
        return average(tensors)

    def forget(self) -> None:
        """Drop what the optimizers remember of earlier steps."""
        if self._binding is not None:
            self._binding.forget()

    def _watched(self) -> bool:
        """Whether the gradients that arrive are wanted as they are."""
        return self.method.wants_gradients(self, self._clock.epoch)  # pyright: ignore[reportArgumentType]
