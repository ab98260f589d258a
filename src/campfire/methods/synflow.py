"""SynFlow: synaptic flow, without data."""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode

from campfire.errors import UsageError
from campfire.mask import view4
from campfire.methods.at_init import AtInit
from campfire.methods.base import Host, Shape, Stage
from campfire.naming import as_written, unwrapped
from campfire.selection import guarded_floor, keep_best

BY_CHANNEL = (F.batch_norm, F.instance_norm, F.group_norm)  # weight and bias along axis 1; those of others at the end
NORMS = frozenset((*BY_CHANNEL, F.layer_norm, F.rms_norm, F.local_response_norm))


@dataclass(frozen=True)
class SynFlow(AtInit):
    """The weights that carry most of a flow of ones through |W| live, found in many rounds; no data is looked at.

        R = sum of model(1; |W|),  score = |w dR/dw|;  density after round n of N: d^(n/N)

    Whole units of the structure go in the rounds, so that no layer is cut off; the last round's scores decide. Norms scale and
    shift, and do not normalise the flow. It must know what the model is given: a loop of one's own calls
    ``pruner.batch(loss, x)`` before ``loss.backward()`` (the images' values are not used).
    When: no dense training is wanted, at very high sparsity. The paper ranks all layers together: ``--allocation global``.
    Source: Tanaka et al. 2020, Pruning neural networks without any data by iteratively conserving synaptic flow.
    """

    name = "synflow"
    rounds: int = 100

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UsageError(f"synflow prunes in 1 round or more; got {self.rounds}")

    def density(self, final: float, round: int) -> float:
        """The density after a round.

        >>> [round(SynFlow().density(0.1, n), 6) for n in (1, 50, 100)]
        [0.977237, 0.316228, 0.1]
        """
        return final ** (round / self.rounds)

    def batch(self, pruner: Host, loss: Tensor, inputs: tuple[Any, ...]) -> None:
        if inputs and self.pending(pruner, pruner.epoch) is not None:
            self.memory["shapes"] = [tuple(x.shape[1:]) for x in inputs]

    def scores(self, pruner: Host, stage: Stage) -> dict[str, Tensor]:
        if not (shapes := self.memory.pop("shapes", [])):
            raise UsageError(
                "synflow must know the shape of what the model is given: call pruner.batch(loss, x) before loss.backward()"
            )
        flow = _Flow(pruner, shapes, list(stage.structures))
        keeps = {name: keep.clone() for name, keep in pruner.keeps(stage).items()}
        for n in range(1, self.rounds):
            target = 1 - self.density(1 - stage.schedule.target, n)
            scores = flow.scores(keeps)
            for name, sparsity in pruner.shares(stage, target, scores).items():
                keeps[name] &= _best(pruner.saliencies(stage, scores)[name], sparsity, keeps[name])
        return flow.scores(keeps)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
        self.memory.clear()


def _best(saliency: Tensor, sparsity: float, alive: Tensor) -> Tensor:
    count = min(alive.numel() - guarded_floor(sparsity * alive.numel()), int(alive.count_nonzero()))
    return keep_best(saliency, max(count, 1), alive.flatten()).view_as(alive)


class _Flow:
    """A copy of the model in float64 with the absolute values of all it holds, in evaluation mode, its norms as at init."""

    def __init__(self, pruner: Host, shapes: list[tuple[int, ...]], layers: list[str]):
        self.model: nn.Module = copy.deepcopy(pruner.model).double().eval()
        with torch.no_grad():
            for module in self.model.modules():
                if isinstance(module, _NormBase):  # for those whose forward pass calls none of `NORMS`
                    module.reset_running_stats()
                if not isinstance(module, torch.jit.ScriptModule):
                    module.forward = _with_affine_norms(module.forward)
            for tensor in chain(self.model.parameters(), self.model.buffers()):
                if tensor.is_floating_point():  # a buffer may be a table of bools or of indices
                    tensor.abs_()
        parameters = {unwrapped(n): p for n, p in self.model.named_parameters(remove_duplicate=False)}
        self.weights: dict[str, Tensor] = {n: parameters[f"{n}.weight" if n else "weight"] for n in layers}
        device = next(iter(self.weights.values())).device
        self.ones = [torch.ones(1, *shape, dtype=torch.float64, device=device) for shape in shapes]
        self.dense = {n: w.detach().clone() for n, w in self.weights.items()}

    def scores(self, keeps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """|w dR/dw| under these masks."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(self.dense[name] * keeps[name].view_as(weight))
        with torch.enable_grad(), as_written():
            flow = self.model(*self.ones).sum()
            grads = torch.autograd.grad(flow, list(self.weights.values()), allow_unused=True, materialize_grads=True)
        scores = {n: view4((w * g).detach().abs()) for (n, w), g in zip(self.weights.items(), grads, strict=True)}
        highest = max(float(x.max()) for x in scores.values())
        if not 0 < highest < torch.inf:
            raise UsageError(
                f"synaptic flow through this model is {highest}: it vanishes or overflows; use another method at init"
            )
        return {n: x / highest for n, x in scores.items()}


class _AffineNorms(TorchFunctionMode):
    """Within, norms only scale and shift: what a norm makes of a flow by the flow's own statistics is as large whatever went in,
    so that the layers before it would count for nothing. Functions are replaced, not modules, for models call either."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in NORMS:
            return func(*args, **(kwargs or {}))
        given = inspect.signature(func).bind(*args, **(kwargs or {})).arguments
        x, weight, bias = given["input"], given.get("weight"), given.get("bias")
        x = x if weight is None else x * _broadcast(weight, func, x)
        return x if bias is None else x + _broadcast(bias, func, x)


def _with_affine_norms(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A module's forward pass; of each one, for the backward pass runs those again that are checkpointed."""

    def run(*args: Any, **kwargs: Any) -> Any:
        with _AffineNorms():
            return forward(*args, **kwargs)

    return run


def _broadcast(affine: Tensor, norm: Callable[..., Any], x: Tensor) -> Tensor:
    return affine.view(-1, *[1] * (x.dim() - 2)) if norm in BY_CHANNEL else affine
