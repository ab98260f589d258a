"""Zeroing what is dead: weights, the optimizer state that would revive them, and gradients where asked."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from campfire.errors import UsageError
from campfire.mask import Mask, view4
from campfire.naming import named_layers
from campfire.pruner.layer import PrunedLayer
from campfire.pruner.multiplying import Multiplication


@torch.no_grad()
def zero_dead_(
    layers: Iterable[PrunedLayer],
    optimizers: Iterable[Optimizer] = (),
    grads: bool = False,
    was: Mapping[PrunedLayer, Tensor] = MappingProxyType({}),
) -> None:
    """Zero the dead weights, their state in these optimizers (momentum would revive them), and their gradients if asked.

    Args:
        was: the `ordered` masks of layers in which all that was dead before is zero.
    """
    optimizers, parts = list(optimizers), []
    for layer in layers:
        weight = layer.weight
        tensors = [weight, *(v for o in optimizers for v in _state_like(weight, o))]
        if grads and weight.grad is not None:
            tensors.append(weight.grad)
        parts.append((layer, tensors))
    Multiplication(parts, was)()


class Zeroing:
    """`zero_dead_` for one optimizer after each of its steps.

    What is to be multiplied is looked up anew only when something moved (a mask, a weight's memory, state tensors): to find
    it costs as much Python as a small layer's multiplication.
    """

    def __init__(self, layers: Iterable[PrunedLayer], optimizer: Optimizer):
        self.optimizer = optimizer
        self._layers = [(layer, layer.weight) for layer in layers]
        self._seen: tuple[list[int], ...] = ()
        self._tensors: list[Tensor] = []
        self._held: list[object] = []  # whose ids were seen: nothing else can be given them
        self._multiply = Multiplication([])

    @torch.no_grad()
    def __call__(self) -> None:
        if self._look() != self._seen:
            parts = [(layer, [weight, *_state_like(weight, self.optimizer)]) for layer, weight in self._layers]
            self._multiply = Multiplication(parts)
            self._held = [(layer.mask, *self.optimizer.state.get(w, {}).values()) for layer, w in self._layers]
            state = [x for x in self._state() if isinstance(x, Tensor)]
            self._tensors = [weight for _, weight in self._layers] + state
            self._seen = self._look()
        self._multiply()

    def _look(self) -> tuple[list[int], ...]:
        """Every mask, every value of the state, and where every tensor is; a few calls in all, for a model has many layers."""
        masks = [layer.stamp() for layer, _ in self._layers]
        return masks, [*map(id, self._state())], [*map(Tensor.data_ptr, self._tensors)]

    def _state(self) -> Iterator[object]:
        return chain.from_iterable(of_one.values() for of_one in self.optimizer.state.values())


def _state_like(weight: Tensor, optimizer: Optimizer) -> list[Tensor]:
    state = optimizer.state.get(weight, {}).values()
    alike = [v for v in state if isinstance(v, Tensor) and v.shape == weight.shape]
    return [v for v in alike if v.is_floating_point()]  # others are codes of some kind, and zero may mean anything


def zero_where_dead_(model: nn.Module, masks: Mapping[str, Mask]) -> None:
    """Zero another model's weights under these masks; raise `UsageError` where it has no such layer."""
    modules = dict(named_layers(model))
    for name, mask in masks.items():
        weight = getattr(modules.get(name), "weight", None)
        if not isinstance(weight, Tensor) or view4(weight).shape != mask.keep.shape:
            raise UsageError(f"the other model has no layer {name!r} with a weight of {tuple(mask.keep.shape)}")
        weight.mul_(mask.keep.view(weight.shape).to(weight))
