"""Pruner: owns the masks of a model and keeps them true through training."""

import dataclasses
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from campfire import methods, scores
from campfire.allocations import Allocation
from campfire.errors import CampfireError, DoesNotFit, LostOutputs, NoEffect, UsageError
from campfire.mask import Mask
from campfire.methods import Method
from campfire.naming import bare
from campfire.pruner import sharing, state
from campfire.pruner.binding import Binding
from campfire.pruner.clock import Clock, whole
from campfire.pruner.hosting import Hosting
from campfire.pruner.later import Later
from campfire.pruner.layer import PrunedLayer, for_layer
from campfire.pruner.listing import report_of
from campfire.pruner.phases import Phase, Stage, bind, phases_of
from campfire.pruner.ranks import check_ranks
from campfire.pruner.rules import Rules, targets
from campfire.pruner.successors import release_others
from campfire.pruner.together import lost_outputs, masks_together
from campfire.pruner.zeroing import zero_dead_, zero_where_dead_
from campfire.schedules import Schedule
from campfire.scores import Score
from campfire.selection import REFUSED, unhurried
from campfire.sparsity import SparsityReport


class Pruner(Hosting):
    """Make a model's weights sparse in a structure while it trains; the training loop does not change.

    ``rules`` is a structure (``"ck"``, ``CK()``: laid on every convolution with groups = 1 except the first), a mapping
    from layers to structures (see `campfire.pruner.rules.resolve`), or a list of `Phase`. The model's class, state-dict keys,
    and weights' dtype never change.

    Args:
        model: any module; DDP- or ``torch.compile``-wrapped is fine.
        rules: which layers get which structure.
        schedule: when how much goes; None where ``rules`` is a list of phases.
        score: what makes a weight matter: ``"magnitude"``, ``"taylor"``, ``"random"`` or a function (weight, grad) -> score.
        method: how masks change: ``"gradual"``, ``"rigl"``, any name of `campfire.methods.REGISTRY`, or a `Method`.
        allocation: how the target is shared: ``"uniform"``, ``"erk"``, ``"ramp"``, ``"global"``, {layer: final sparsity}, or a
            function (see `campfire.allocations`).
        every: steps between mask updates inside an epoch (1: the paper).
        seed: for scores that are drawn.

    Raises:
        UsageError: a rule matches nothing, nothing would be pruned, or the parts do not go together.

    >>> from campfire import Era, Pruner
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> pruner = Pruner(model, "ck", Era(start=0, length=1, target=0.5)).attach(optimizer, steps_per_epoch=2)
    >>> for _ in range(4):  # the loop as it was
    ...     optimizer.zero_grad()
    ...     model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    ...     _ = optimizer.step()
    >>> pruner.sparsity, int((model[2].weight == 0).sum()), pruner.frozen
    (0.5, 288, True)
    """

    def __init__(
        self,
        model: nn.Module,
        rules: Rules | Sequence[Phase],
        schedule: Schedule | None = None,
        *,
        score: str | Score = "magnitude",
        method: str | Method = "gradual",
        allocation: str | Allocation | Mapping[str, float] = "uniform",
        every: int = 1,
        seed: int = 0,
    ):
        if not isinstance(model, nn.Module):
            raise UsageError(f"a pruner is made for a model, a torch.nn.Module; got {type(model).__name__}")
        every = whole(every, "every")
        if every < 1:
            raise UsageError(f"every is a number of steps, 1 or more; got {every}")
        phases = phases_of(rules, schedule)
        self.method = methods.named(method) if isinstance(method, str) else dataclasses.replace(method)
        for phase in phases:
            if reasons := self.method.why_not(phase.schedule):
                raise DoesNotFit(f"method {str(self.method)!r}", "this schedule", reasons)
            if phase.schedule.target == 0:
                warnings.warn("a schedule with target 0 removes nothing", NoEffect, stacklevel=2)
        self.model, self.every, self.seed = bare(model), every, seed
        found, refused = targets(self.model)
        self.stages = bind(phases, found, refused)
        if reasons := self.method.why_not_on(self.stages):
            raise DoesNotFit(f"method {str(self.method)!r}", "these rules", reasons)
        self._dense = {**self.stages[0].dense, **{r.name: r.reason for r in refused}}
        score = scores.named(score, seed) if isinstance(score, str) else score
        first = {n: structure for stage in reversed(self.stages) for n, structure in stage.structures.items()}
        self.layers = {
            t.name: PrunedLayer(t, first[t.name], for_layer(score, t.name)) for t in found if t.name in first
        }
        self.settings = {"score": state.spelled(score), "allocation": state.spelled(allocation), "every": every}
        self._allocate = sharing.allocation_of(allocation, self.stages, self.layers)
        self._clock = Clock()
        self._binding: Binding | None = None
        self._verified = 0  # eras
        self._tidy = False  # whether all that is dead is known to be zero
        self._warned: set[str] = set()
        self._later = Later()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_binding": None, "_later": Later()}  # a copy is not attached

    # --- the clock -----------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Training steps done."""
        return self._clock.steps

    @property
    def epoch(self) -> float:
        """Epochs trained: a float that moves with every optimizer step."""
        return self._clock.epoch

    def set_epoch(self, epoch: float, steps: int | None = None) -> None:
        """Set the clock, for loops whose epochs have no fixed number of steps; call it at the start of each epoch.

        ``steps`` are those done before, where a training without a pruner goes on with this one.
        """
        self._clock.set(epoch, steps)

    @property
    def frozen(self) -> bool:
        """Whether every era is over: masks never change again."""
        return self._done() == len(self.stages)

    def _done(self) -> int:
        return sum(s.done(self.epoch) for s in self.stages)

    # --- binding to an optimizer -----------------------------------------------------------------------------------

    def attach(self, optimizer: Optimizer | Iterable[Optimizer], steps_per_epoch: int | None) -> "Pruner":
        """Bind to the optimizers that hold the weights; the first one is the clock.

        From now on dead weights' gradients are zero as they arrive, and after every step weights and optimizer state of
        the same shape are zero where the weight is dead.

        Args:
            steps_per_epoch: optimizer steps in an epoch (with gradient accumulation fewer than batches); None where epochs
                have no fixed length: then each begins with `set_epoch`, and no other way.

        Raises:
            UsageError: it is attached already, or no optimizer holds a pruned weight.
        """
        if self._binding is not None:
            raise UsageError("this pruner is attached already; call detach() first")
        self._clock.pace(steps_per_epoch)
        release_others(self)
        self._binding = Binding(self.layers.values(), optimizer, self._before_step, self._after_step, self._watched)
        return self

    def detach(self) -> None:
        """Take every hook off again; masks stay as they are."""
        if self._binding is not None:
            self._binding.release()
        self._binding = None

    @torch.no_grad()
    def _before_step(self) -> None:
        self.method.before_step(self, self.epoch)
        for layer in self.layers.values():
            layer.dense_grad = None

    def _after_step(self) -> None:
        self._tidy = True  # the binding has just zeroed whatever is dead
        try:
            self.method.after_step(self, self.epoch)
        finally:
            self._tidy = False
        self._clock.steps += 1
        if self._done() > self._verified:
            self.verify()

    def reapply(self, optimizer: Optimizer) -> None:
        """Zero the dead weights, and their state in an optimizer: a masked gradient alone lets momentum revive them."""
        known = self._binding.zeroing.get(id(optimizer)) if self._binding else None
        known() if known else zero_dead_(self.layers.values(), [optimizer])

    @torch.no_grad()
    def apply(self, model: nn.Module | None = None) -> None:
        """Zero the dead weights of the model, or of another one with the same layers (an average, a copy).

        Raises:
            UsageError: the other model has no such layer.
        """
        if model is None:
            zero_dead_(self.layers.values())
        else:
            zero_where_dead_(bare(model), self.masks)

    # --- masks -----------------------------------------------------------------------------------------------------

    @property
    def masks(self) -> dict[str, Mask]:
        """The mask of every layer in which something is dead."""
        return {name: mask for name, layer in self.layers.items() if (mask := layer.mask) is not None}

    @property
    def sparsity(self) -> float:
        """The true fraction of zeros over the pruned layers."""
        return 1 - sum(x.kept for x in self.layers.values()) / sum(x.weight.numel() for x in self.layers.values())

    @torch.no_grad()
    def update(
        self,
        stage: Stage,
        target: float,
        layers: Mapping[str, float] | None = None,
        scores: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Tighten the masks of a phase to the schedule's ``target``; methods call this.

        What dies goes at once: weights, gradients, and state in every optimizer.

        Args:
            layers: a sparsity for each layer, instead of the allocation's share of the target.
            scores: [K, C, R, S] for each layer, instead of the pruner's score.
        """
        stage.goals = stage.goals or sharing.goals(self._allocate, stage, self.layers, scores)
        changed, ours = [], {name: self.layers[name] for name in stage.structures}
        for name, layer in ours.items():
            layer.requested = stage.target_of(name, target) if layers is None else layers[name]
        was = {x: x.ordered() for x in ours.values() if self._tidy and x.mask is not None}
        with unhurried() as refused:
            keeps = masks_together((ours[n], s) for n, s in stage.structures.items()) if scores is None else {}
            for name, structure in stage.structures.items():
                goal = stage.goals[name] if layers is None else stage.schedule.target
                score = None if scores is None else scores[name]
                if ours[name].tighten(structure, stage.plans, goal, score, keeps.get(name)):
                    changed.append(ours[name])
        stage.applied, stage.updates = target, stage.updates + 1
        zero_dead_(changed, self._binding.optimizers if self._binding else (), grads=True, was=was)
        self._later.ask(refused, _refuse)
        quiet = [x for x in changed if x.target.name not in self._warned and not x.structure.drops_outputs]
        self._later.ask(lost_outputs(quiet), partial(self._warn_of_lost, quiet))
        self._later.hear()

    def _warn_of_lost(self, layers: Sequence[PrunedLayer], numbers: Sequence[int]) -> None:
        """Once a layer."""
        lost = [(x.target, n) for x, n in zip(layers, numbers, strict=True) if n and x.target.name not in self._warned]
        if lost:
            self._warned |= {target.name for target, _ in lost}
            names = ", ".join(f"{target.name} ({n} of {target.shape[0]})" for target, n in lost)
            cure = "ask for fewer zeros there, or for smaller units"
            warnings.warn(f"outputs without a living weight: {names}; {cure}", LostOutputs, stacklevel=4)

    def verify(self) -> None:
        """Check that every mask is legal and, under `torch.distributed`, equal on all ranks (all of them must call it).

        Raises:
            CampfireError: naming the layer.
        """
        self._later.hear(wait=True)
        for name, mask in self.masks.items():
            structure = self.layers[name].structure
            if (held := int(mask.keep.count_nonzero())) != self.layers[name].kept:
                raise CampfireError(f"the mask of layer {name!r} holds {held} weights, not {self.layers[name].kept}")
            if reasons := structure.why_invalid(mask):
                raise CampfireError(f"the mask of layer {name!r} is no {str(structure)!r}: {'; '.join(reasons)}")
        check_ranks(self.masks)
        self._verified = self._done()

    def report(self) -> SparsityReport:
        """What was asked and what is true, layer by layer."""
        finals = {n: s.goals.get(n, s.schedule.target) for s in self.stages for n in s.structures}
        found = report_of(self.model, {n: x.report(finals[n]) for n, x in self.layers.items()}, self._dense)
        return dataclasses.replace(found, standing=self.standing)

    @property
    def standing(self) -> str:
        """What is still to come, in words; "" once masks are final."""
        if self.frozen:
            return ""
        if not self.steps and self._binding is None:
            return "no step was seen: attach(optimizer, steps_per_epoch) comes before training"
        last = self.stages[-1].schedule
        return (
            f"at epoch {self.epoch:g}, masks change until epoch {last.last} is over, where {last.target:.3f} is asked"
        )

    def forecast(self) -> SparsityReport:
        """What the end of the schedule asks of each layer, and how many weights its structure keeps then; no mask is made.

        Where layers share the target by their scores (``global``), each is given the target itself.
        """
        last = {n: (stage, structure) for stage in self.stages for n, structure in stage.structures.items()}
        shares = {id(stage): sharing.forecast(self._allocate, stage, self.layers) for stage in self.stages}
        rows = {n: self.layers[n].forecast(x, shares[id(stage)][n]) for n, (stage, x) in last.items()}
        return report_of(self.model, rows, self._dense)

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Clock, masks (one bit a weight) and plans; loads with ``torch.load(..., weights_only=True)``."""
        return state.state_of(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where a pruner of the same model and rules stood; before or after the model's weights, or `attach`.

        Under `torch.distributed` all ranks must call it.

        Raises:
            CheckpointError: the state is damaged, or of another model, rule set or schedule; the differences are named,
                and nothing has changed.
        """
        state.load_into(self, saved)
        self.apply()
        self.verify()


def _refuse(numbers: Sequence[int]) -> None:
    if any(numbers):
        raise CampfireError(REFUSED)
