"""DeepR: deep rewiring."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import view4
from campfire.methods.base import Host, Shape, Stage, read_tensors
from campfire.methods.regrow import Regrow, drawn, elsewhere


@dataclass(frozen=True)
class DeepR(Regrow):
    """A random walk: a living weight whose sign changes dies, and another is born at a random place of its layer.

        g += l1 sign(w) + noise, noise ~ N(0, 2 eta T), for living weights;  T falls from ``hot`` to ``cold``

    A unit of several weights dies when, by the structure's share of its score, more of it points against the signs that its
    weights were born with than along them (ours; for single weights it is the paper's rule). Looked at in every step, or every
    ``every`` steps of the pruner.
    When: as a baseline; it costs a look at every layer in every step.
    Source: Bellec et al. 2018, Deep Rewiring; the noise as in Mostafa and Wang's code.
    """

    name = "deepr"
    fraction: float = 0.0
    eta: float = 0.01
    l1: float = 1e-5
    hot: float = 1e-5
    cold: float = 1e-15

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.eta, self.hot, self.cold) <= 0 or self.l1 < 0:
            raise UsageError(
                f"eta, hot and cold are > 0 and l1 is >= 0; got {self.eta}, {self.hot}, {self.cold} and {self.l1}"
            )

    def growth(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        return drawn(pruner, stage)

    @torch.no_grad()
    def before_step(self, pruner: Host, epoch: float) -> None:
        (stage,) = pruner.stages
        if stage.applied is None:
            super().before_step(pruner, epoch)
        if stage.applied is None or stage.schedule.over(epoch):
            return
        heat = self.hot ** (1 - self.passed(stage, epoch)) * self.cold ** self.passed(stage, epoch)
        for name, keep in pruner.keeps(stage).items():
            weight = pruner.weights(stage)[name]
            if weight.grad is not None:
                noise = _normal(f"{pruner.seed}/{name}/{pruner.steps}", weight) * math.sqrt(2 * self.eta * heat)
                pull = (self.l1 * weight.sign() + noise) * keep.view_as(weight)
                weight.grad.add_(pruner.scaled(pull))

    @torch.no_grad()
    def after_step(self, pruner: Host, epoch: float) -> None:
        (stage,) = pruner.stages
        target = stage.schedule(epoch)
        if stage.applied is None or (stage.schedule.over(epoch) and stage.applied == stage.schedule.target):
            return
        survivors, died = self._flipped(pruner, stage)
        if pruner.steps % pruner.every or (not died and target == stage.applied):
            return
        keeps, weights = pruner.keeps(stage), pruner.weights(stage)
        for name, weight in weights.items():
            weight.mul_((survivors[name] | ~keeps[name]).view_as(weight))  # what is born again here starts at 0, too
        growth = elsewhere(self.explored_last(pruner, stage), keeps, survivors)
        pruner.regrow(stage, target, survivors, growth, regroup=self.regroup)
        self._explore(pruner, stage)
        for name, keep in pruner.keeps(stage).items():
            self.memory["signs"][name] *= keep & survivors[name]

    def _flipped(self, pruner: Host, stage: Stage) -> tuple[dict[str, Tensor], int]:
        """What lives and has kept its signs, and how much has not."""
        weights, keeps, signs = pruner.weights(stage), pruner.keeps(stage), self.memory.setdefault("signs", {})
        for name, keep in keeps.items():
            now = (view4(weights[name].detach()).sign() * keep).to(torch.int8)
            born = signs[name].to(now.device) if name in signs else torch.zeros_like(now)
            signs[name] = torch.where(born == 0, now, born)
        along = {n: view4(w.detach()).float() * signs[n] for n, w in weights.items()}
        kept = pruner.saliencies(stage, {n: x.clamp(min=0) for n, x in along.items()})
        lost = pruner.saliencies(stage, {n: (-x).clamp(min=0) for n, x in along.items()})
        survivors = {n: keep & (kept[n] >= lost[n]).view_as(keep) for n, keep in keeps.items()}
        return survivors, sum(int((k & ~survivors[n]).count_nonzero()) for n, k in keeps.items())

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "signs": dict(self.memory.get("signs", {}))}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        signs = read_tensors(state["signs"], shapes)
        super().load_state_dict(state, shapes)
        self.memory["signs"] = signs


def _normal(key: str, like: Tensor) -> Tensor:
    """Standard normal noise that depends on the key and the shape alone, in the weight's memory format."""
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.randn(like.shape, generator=generator).to(like)
