"""Zeroing what is dead: weights, the optimizer state that would revive them, and gradients where asked."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from campfire.errors import UsageError
from campfire.mask import Mask, view4
from campfire.pruner.layer import PrunedLayer


@torch.no_grad()
def zero_dead_(layers: Iterable[PrunedLayer], optimizers: Iterable[Optimizer] = (), grads: bool = False) -> None:
    """Zero the dead weights, their state in these optimizers (momentum would revive them), and their gradients if asked."""
    _multiply_(*_pairs(layers, optimizers, grads))


def _pairs(
    layers: Iterable[PrunedLayer], optimizers: Iterable[Optimizer], grads: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """What to multiply, and by what; a layer's tensors follow each other, so that its factor is read from memory once."""
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
    return tensors, factors


class Zeroing:
    """`zero_dead_` for one optimizer after each of its steps.

    What it found it keeps while nothing moved (masks, the weights' memory, state tensors): to find it anew costs as much
    Python as the small layers' multiplications take. So the check is a few lists of ids, made by the interpreter itself.
    """

    def __init__(self, layers: Iterable[PrunedLayer], optimizer: Optimizer):
        self.optimizer, self.layers = optimizer, list(layers)
        self._weights = [layer.weight for layer in self.layers]
        self._seen: tuple[list[int], ...] = ()
        self._held: list[object] = []  # what the ids in _seen belong to: they cannot be given to others meanwhile
        self._tensors: list[Tensor] = []
        self._factors: list[Tensor] = []

    @torch.no_grad()
    def __call__(self) -> None:
        if self._look() != self._seen:
            self._find()
        _multiply_(self._tensors, self._factors)

    def _look(self) -> tuple[list[int], ...]:
        factors = [id(layer.cached_factor) for layer in self.layers]
        return factors, [*map(Tensor.data_ptr, self._weights)], [*map(id, self._state())]

    def _state(self) -> Iterator[object]:
        return chain.from_iterable(of_one.values() for of_one in self.optimizer.state.values())

    def _find(self) -> None:
        self._tensors, self._factors = _pairs(self.layers, [self.optimizer])
        self._held = [*self._state(), *(layer.cached_factor for layer in self.layers)]
        self._seen = self._look()


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
