"""SNIP: connection sensitivity at init."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import view4
from campfire.methods.at_init import AtInit
from campfire.methods.base import Host, Shape, Stage, read_tensors


@dataclass(frozen=True)
class Snip(AtInit):
    """The weights without which the loss of the first batch would change most live, once and for all.

        score = |w g|,  g = dL/dw of the first step's batch

    With ``steps`` above 1, |sum of w g| over the first steps; the model trains densely meanwhile.
    When: no dense training is wanted. The paper ranks all layers together: ``--allocation global``.
    Source: Lee et al. 2019, SNIP.
    """

    name = "snip"
    steps: int = 1

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UsageError(f"steps are the steps whose gradients count, 1 or more; got {self.steps}")

    def scores(self, pruner: Host, stage: Stage) -> dict[str, Tensor] | None:
        weights, sums = pruner.weights(stage), self.memory.get("sums", {})
        for name, grad in pruner.gradients(stage).items():
            change = view4(weights[name].detach()).float() * grad
            sums[name] = sums[name].to(change.device) + change if name in sums else change
        seen = self.memory.get("seen", 0) + 1
        if seen < self.steps:
            self.memory.update(sums=sums, seen=seen)
            return None
        self.memory.clear()
        return {name: x.abs() for name, x in sums.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.memory.get("seen", 0), "sums": dict(self.memory.get("sums", {}))}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        sums, seen = read_tensors(state["sums"], shapes), int(state["seen"])
        self.memory.update(sums=sums, seen=seen)
