"""Pruner: owns the masks of a model and keeps them true through training."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from campfire import allocations, methods, scores
from campfire.allocations import Allocation
from campfire.errors import CampfireError, DoesNotFit, LostOutputs, NoEffect, UsageError
from campfire.mask import Mask, view4
from campfire.methods import Method
from campfire.pruner import state
from campfire.pruner.layer import PrunedLayer, for_layer
from campfire.pruner.phases import Phase, Stage, check_order
from campfire.pruner.rules import Rules, bare, resolve, targets
from campfire.schedules import Schedule
from campfire.scores import Score
from campfire.sparsity import LayerSparsity, SparsityReport
from campfire.structures import Structure


class Pruner:
    """Make a model's weights sparse in a structure while it trains; the training loop does not change.

    ``rules`` is a structure (``"ck"``, ``CK()``: laid on every convolution with groups = 1 except the first), a mapping
    from layers to structures (see `campfire.pruner.rules.resolve`), or a list of `Phase`. The model's class, state-dict keys,
    and weights' dtype never change.

    Args:
        model: any module; DDP- or ``torch.compile``-wrapped is fine.
        rules: which layers get which structure.
        schedule: when how much goes; None where ``rules`` is a list of phases.
        score: what makes a weight matter: ``"magnitude"``, ``"taylor"``, ``"random"`` or a function (weight, grad) -> score.
        method: how masks change: ``"gradual"``, ``"iterative"`` or a `Method`.
        allocation: how the target is shared: ``"uniform"``, ``"erk"``, ``"global"``, or {layer: final sparsity}.
        every: steps between mask updates inside an epoch (1: the paper).
        seed: for scores that are drawn.

    Raises:
        UsageError: a rule matches nothing, nothing would be pruned, or the parts do not go together.

    >>> from campfire import Era, Pruner
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> pruner = Pruner(model, "ck", Era(start=0, length=1, target=0.75)).attach(optimizer, steps_per_epoch=2)
    >>> for _ in range(4):  # the loop as it was
    ...     optimizer.zero_grad()
    ...     model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    ...     _ = optimizer.step()
    >>> pruner.sparsity, int((model[2].weight == 0).sum()), pruner.frozen
    (0.75, 432, True)
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
        if every < 1:
            raise UsageError(f"every is a number of steps, 1 or more; got {every}")
        phases = _phases(rules, schedule)
        self.method = methods.named(method) if isinstance(method, str) else method
        for phase in phases:
            if reasons := self.method.why_not(phase.schedule):
                raise DoesNotFit(f"method {str(self.method)!r}", "this schedule", reasons)
            if phase.schedule.target == 0:
                warnings.warn("a schedule with target 0 removes nothing", NoEffect, stacklevel=2)
        self.model, self.every, self.seed, self.steps = bare(model), every, seed, 0
        self._allocate = _allocation(allocation)
        found, self._refused = targets(self.model)
        self._targets = {t.name: t for t in found}
        self.stages = [Stage(p.schedule, *resolve(found, p.rules)) for p in phases]
        base = scores.named(score, seed) if isinstance(score, str) else score
        self.layers = {
            t.name: PrunedLayer(t, structure, for_layer(base, t.name))
            for t in found
            if (structure := next((s.structures[t.name] for s in self.stages if t.name in s.structures), None))
        }
        self._optimizers: list[Optimizer] = []
        self._handles: list[RemovableHandle] = []
        self._steps_per_epoch = 1
        self._origin = (0.0, 0)  # the epoch at which the clock was set, and the step then
        self._verified = False
        self._warned: set[str] = set()

    # --- the clock -----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> float:
        """Epochs trained: a float that moves with every optimizer step."""
        return self._origin[0] + (self.steps - self._origin[1]) / self._steps_per_epoch

    def set_epoch(self, epoch: float) -> None:
        """Set the clock, for loops whose epochs have no fixed number of steps; call it at the start of each epoch."""
        self._origin = (float(epoch), self.steps)

    @property
    def frozen(self) -> bool:
        """Whether every era is over: masks never change again."""
        return all(s.schedule.over(self.epoch) and s.applied == s.schedule.target for s in self.stages)

    # --- binding to an optimizer -----------------------------------------------------------------------------------

    def attach(self, optimizer: Optimizer | Iterable[Optimizer], steps_per_epoch: int) -> "Pruner":
        """Bind to the optimizers that hold the weights; the first one is the clock.

        From now on dead weights' gradients are zero as they arrive, and after every step weights and optimizer state of
        the same shape are zero where the weight is dead.

        Args:
            steps_per_epoch: optimizer steps in an epoch (with gradient accumulation fewer than batches).

        Raises:
            UsageError: it is attached already, or no optimizer holds a pruned weight.
        """
        if self._handles:
            raise UsageError("this pruner is attached already; call detach() first")
        if steps_per_epoch < 1:
            raise UsageError(f"steps_per_epoch is the number of optimizer steps in an epoch; got {steps_per_epoch}")
        optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        held = {id(p) for o in optimizers for group in o.param_groups for p in group["params"]}
        if not any(id(layer.weight) in held for layer in self.layers.values()):
            raise UsageError("no pruned weight is in the optimizer; build it from this model's parameters()")
        self._optimizers, self._steps_per_epoch = optimizers, steps_per_epoch
        for layer in self.layers.values():
            if layer.weight.requires_grad:
                self._handles.append(layer.weight.register_hook(layer.zero_dead))
        for o in optimizers:
            self._handles.append(o.register_step_post_hook(self._after_step))
        self._handles.append(optimizers[0].register_step_pre_hook(self._before_step))
        return self

    def detach(self) -> None:
        """Take every hook off again; masks stay as they are."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._optimizers = [], []

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        self.method.before_step(self, self.epoch)

    @torch.no_grad()
    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        if optimizer is self._optimizers[0] and not _skipped(optimizer):
            self.method.after_step(self, self.epoch)
            self.steps += 1
        self.reapply(optimizer)
        if self.frozen and not self._verified:
            self.verify()

    @torch.no_grad()
    def reapply(self, optimizer: Optimizer | None = None) -> None:
        """Zero the dead weights, and their optimizer state: a masked gradient alone lets momentum revive them."""
        tensors: list[Tensor] = []
        factors: list[Tensor] = []
        for layer in self.layers.values():
            weight, factor = layer.weight, layer.factor()
            if factor is None:
                continue
            own = optimizer.state.get(weight, {}) if optimizer is not None else {}
            for tensor in [weight, *(v for v in own.values() if torch.is_tensor(v) and v.shape == weight.shape)]:
                tensors.append(tensor)
                factors.append(factor)
        if tensors:
            torch._foreach_mul_(tensors, factors)  # pyright: ignore[reportPrivateImportUsage]

    @torch.no_grad()
    def apply(self, model: nn.Module | None = None) -> None:
        """Zero the dead weights of the model, or of another one with the same layers (an average, a copy)."""
        if model is None:
            self.reapply(None)
            return
        other = bare(model)
        for name, layer in self.layers.items():
            weight = other.get_submodule(name).weight
            if layer.mask is not None and isinstance(weight, Tensor):
                weight.mul_(layer.mask.keep.view(weight.shape).to(weight))

    def penalty(self) -> Tensor | float:
        """The method's term for the loss; 0.0 where it has none."""
        return self.method.penalty(self)

    # --- masks -----------------------------------------------------------------------------------------------------

    @property
    def masks(self) -> dict[str, Mask]:
        """The mask of every layer in which something is dead."""
        return {name: layer.mask for name, layer in self.layers.items() if layer.mask is not None}

    @property
    def sparsity(self) -> float:
        """The true fraction of zeros over the pruned layers."""
        return 1 - sum(x.kept for x in self.layers.values()) / sum(x.weight.numel() for x in self.layers.values())

    @torch.no_grad()
    def update(self, stage: Stage, target: float, layers: Mapping[str, float] | None = None) -> None:
        """Tighten the masks of a phase to the schedule's ``target``; methods call this.

        Args:
            layers: a sparsity for each layer, instead of the allocation's share of the target.
        """
        if not stage.goals:
            shapes = {n: self.layers[n].target.shape for n in stage.structures}
            stage.goals = self._allocate(shapes, stage.schedule.target, lambda: _numpy(self.saliencies(stage)))
        changed = []
        for name, structure in stage.structures.items():
            layer = self.layers[name]
            layer.structure = structure
            layer.requested = stage.target_of(name, target) if layers is None else layers[name]
            if self._tighten(layer, structure, stage):
                changed.append(name)
        stage.applied, stage.updates = target, stage.updates + 1
        self._check_losses(changed)

    def _tighten(self, layer: PrunedLayer, structure: Structure, stage: Stage) -> bool:
        name, alive = layer.target.name, layer.keep
        count = structure.count(layer.target.shape, layer.requested)
        if count >= int(alive.count_nonzero()):
            return False
        score = layer.importance()
        if name not in stage.plans:
            stage.plans[name] = structure.plan(score * alive, stage.goals[name])
        plan = stage.plans[name]
        layer.set(Mask(structure.project(score, count, plan, alive), plan))
        return True

    def saliencies(self, stage: Stage) -> dict[str, Tensor]:
        """Every weight's share in its unit's score for each layer of a phase, flat; 0 where dead."""
        layers = ((n, s, self.layers[n]) for n, s in stage.structures.items())
        return {n: s.saliency(x.importance() * x.keep).flatten() for n, s, x in layers}

    def _check_losses(self, changed: list[str]) -> None:
        """Warn once for each layer that loses an output."""
        lost = {}
        for name in changed:
            layer = self.layers[name]
            dead = int((~layer.keep.flatten(1).any(1)).sum())
            if dead == layer.target.shape[0]:
                raise CampfireError(f"layer {name!r} would lose everything; lower its sparsity ({layer.requested:.4f})")
            if dead and name not in self._warned and not layer.structure.drops_outputs:
                lost[name] = dead
        if lost:
            self._warned |= set(lost)
            listed = ", ".join(f"{n} ({dead} of {self.layers[n].target.shape[0]})" for n, dead in lost.items())
            warnings.warn(f"outputs without a living weight: {listed}", LostOutputs, stacklevel=2)

    def verify(self) -> None:
        """Check that every mask is legal and, under `torch.distributed`, equal on all ranks.

        Raises:
            CampfireError: naming the layer.
        """
        for name, layer in self.layers.items():
            if layer.mask is not None and (reasons := layer.structure.why_invalid(layer.mask)):
                raise CampfireError(f"the mask of layer {name!r} is no {str(layer.structure)!r}: {'; '.join(reasons)}")
        state.check_ranks(self.masks)
        self._verified = self.frozen

    def report(self) -> SparsityReport:
        """What was asked and what is true, layer by layer."""
        rows = []
        for name, module in self.model.named_modules():
            if name in self.layers:
                rows.append(self.layers[name].report())
            elif name in self._targets:
                t = self._targets[name]
                rows.append(LayerSparsity.dense(name, t.shape, self.stages[0].dense[name], t.conv))
            elif name in self._refused and isinstance(weight := getattr(module, "weight", None), Tensor):
                shape, conv = tuple(view4(weight).shape), isinstance(module, nn.Conv2d)
                rows.append(LayerSparsity.dense(name, shape, self._refused[name], conv))
        covered = sum(r.weights for r in rows)
        return SparsityReport(rows, other=max(0, sum(p.numel() for p in self.model.parameters()) - covered))

    # --- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Clock, masks (one bit a weight) and plans; loads with ``torch.load(..., weights_only=True)``."""
        return state.state_of(self)

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Continue where a pruner of the same model and rules stood.

        Raises:
            CheckpointError: the state is damaged, or of another model, rule set or schedule; the differences are named.
        """
        state.load_into(self, saved)
        self._verified = False
        self.verify()
        self.apply()


def _phases(rules: Rules | Sequence[Phase], schedule: Schedule | None) -> list[Phase]:
    if isinstance(rules, Sequence) and not isinstance(rules, str):
        if schedule is not None:
            raise UsageError("a list of phases carries its own schedules; leave schedule out")
        phases = list(rules)
    elif schedule is None:
        raise UsageError("a pruner needs a schedule, for instance Era(start=30, length=20, target=0.7)")
    else:
        phases = [Phase(rules, schedule)]
    check_order(phases)
    return phases


def _allocation(given: str | Allocation | Mapping[str, float]) -> Allocation:
    if isinstance(given, str):
        return allocations.named(given)
    return allocations.given(given) if isinstance(given, Mapping) else given


def _skipped(optimizer: Optimizer) -> bool:
    """Whether GradScaler let a fused optimizer run into an infinity: its kernel then changes nothing."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found.item() > 0)


def _numpy(saliencies: dict[str, Tensor]) -> dict[str, Any]:
    return {name: s.cpu().numpy() for name, s in saliencies.items()}
