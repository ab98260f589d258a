"""GraSP: gradient flow at init."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.mask import view4
from campfire.methods.at_init import AtInit
from campfire.methods.base import Host, Shape, Stage, read_tensors


@dataclass(frozen=True)
class Grasp(AtInit):
    """The weights on which the gradient's flow depends live, once and for all.

        score = w (H g),  g = dL/dw, H = d2L/dw2 of the first step's batches; the *smallest* go

    (the paper removes the largest of -w (H g), which is the same). Scores are shifted to start at 0. H g needs the loss
    itself: a loop of one's own calls ``pruner.batch(loss)`` before ``loss.backward()``. The paper divides the logits by a
    temperature of 200; here the loss is the one that is trained.
    When: no dense training is wanted, at high sparsity. The paper ranks all layers together: ``--allocation global``.
    Source: Wang et al. 2020, Picking Winning Tickets Before Training by Preserving Gradient Flow.
    """

    name = "grasp"

    def batch(self, pruner: Host, loss: Tensor, inputs: tuple[Any, ...]) -> None:
        if (stage := self.pending(pruner, pruner.epoch)) is None:
            return
        weights = pruner.weights(stage)
        flows = _flows(loss, list(weights.values()))
        sums = self.memory.setdefault("sums", {})
        for (name, w), flow in zip(weights.items(), flows, strict=True):
            change = view4(w.detach() * flow).float()
            sums[name] = sums[name].to(change.device) + change if name in sums else change

    def scores(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        if not (sums := self.memory.pop("sums", {})):
            raise UsageError(
                "grasp needs the loss itself, for second derivatives, and has seen none: call pruner.batch(loss) "
                "before loss.backward()"
            )
        scores = dict(zip(sums, pruner.average(sums.values()), strict=True))
        least = min(float(x.min()) for x in scores.values())
        return {name: x - least for name, x in scores.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self.memory.get("sums", {}))}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        self.memory["sums"] = read_tensors(state["sums"], shapes)


def _flows(loss: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """H g for every weight; the graph of the loss stays for the loop's own backward."""
    try:
        with torch.enable_grad():
            grads = torch.autograd.grad(loss, weights, create_graph=True)
            flow = sum(((g.detach() * g).sum() for g in grads), torch.zeros((), device=loss.device))
            return [x.detach() for x in torch.autograd.grad(flow, weights, retain_graph=True, materialize_grads=True)]
    except RuntimeError as error:
        raise UsageError(
            f"grasp needs second derivatives of the loss with respect to every pruned weight, and there are none: {error} "
            "(leave frozen and unused layers dense by a rule, and do not compile the model)"
        ) from None
