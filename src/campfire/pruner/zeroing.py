"""Zeroing what is dead: weights, the optimizer state that would revive them, and gradients where asked."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from campfire.errors import UsageError
from campfire.mask import Mask, view4
from campfire.pruner.layer import PrunedLayer


@torch.no_grad()
def zero_dead_(layers: Iterable[PrunedLayer], optimizers: Iterable[Optimizer] = (), grads: bool = False) -> None:
    """Zero the dead weights, their state in these optimizers (momentum would revive them), and their gradients if asked."""
    optimizers = list(optimizers)
    tensors: list[Tensor] = []
    factors: list[Tensor] = []
    for layer in layers:
        if (factor := layer.factor()) is None:
            continue
        weight = layer.weight
        mine = [weight, *(v for o in optimizers for v in _state_like(weight, o))]
        if grads and weight.grad is not None:
            mine.append(weight.grad)
        tensors += mine
        factors += [factor] * len(mine)
    _multiply_(tensors, factors)


class Zeroing:
    """`zero_dead_` for one optimizer after each of its steps.

    What it found for a layer it keeps while nothing moved (mask, weight's memory, state tensors): finding it anew costs as
    much Python as a small layer's multiplication.
    """

    def __init__(self, layers: Iterable[PrunedLayer], optimizer: Optimizer):
        self.optimizer = optimizer
        self._layers = [(layer, layer.weight) for layer in layers]
        self._found: list[_Found | None] = [None] * len(self._layers)

    @torch.no_grad()
    def __call__(self) -> None:
        state = self.optimizer.state
        tensors: list[Tensor] = []
        factors: list[Tensor] = []
        for i, (layer, weight) in enumerate(self._layers):
            if (cached := layer.cached_factor) is None and (cached := layer.factor()) is None:
                continue
            held = [*map(id, state[weight].values())] if weight in state else []
            found = self._found[i]
            if found is None or found.factor is not cached or found.at != weight.data_ptr() or found.held != held:
                found = self._found[i] = self._look(layer, held)
            tensors += found.tensors
            factors += found.factors
        _multiply_(tensors, factors)

    def _look(self, layer: PrunedLayer, held: list[int]) -> "_Found":
        weight, factor = layer.weight, layer.factor()
        assert factor is not None
        state = list(self.optimizer.state.get(weight, {}).values())
        tensors = [weight, *_state_like(weight, self.optimizer)]
        return _Found(factor, weight.data_ptr(), held, state, tensors, [factor] * len(tensors))


@dataclass(frozen=True)
class _Found:
    factor: Tensor
    at: int
    held: list[int]  # ids of the state's values...
    state: list[object]  # ...which cannot be given to others while this list holds them
    tensors: list[Tensor]
    factors: list[Tensor]


def _state_like(weight: Tensor, optimizer: Optimizer) -> list[Tensor]:
    state = optimizer.state.get(weight, {}).values()
    return [v for v in state if isinstance(v, Tensor) and v.shape == weight.shape]


def _multiply_(tensors: list[Tensor], factors: list[Tensor]) -> None:
    if tensors:
        torch._foreach_mul_(tensors, factors)  # pyright: ignore[reportPrivateImportUsage]


def zero_where_dead_(model: nn.Module, masks: Mapping[str, Mask]) -> None:
    """Zero another model's weights under these masks; raise `UsageError` where it has no such layer."""
    modules = dict(model.named_modules())
    for name, mask in masks.items():
        weight = getattr(modules.get(name), "weight", None)
        if not isinstance(weight, Tensor) or view4(weight).shape != mask.keep.shape:
            raise UsageError(f"the other model has no layer {name!r} with a weight of {tuple(mask.keep.shape)}")
        weight.mul_(mask.keep.view(weight.shape).to(weight))
