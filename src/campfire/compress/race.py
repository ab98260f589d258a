"""The whole model under several plans, in turns: what layers that were timed by themselves do not tell."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from campfire.compress.originals import Originals
from campfire.compress.plan import Plan
from campfire.compress.recording import Example, buffers_kept, generators_kept, modes_kept
from campfire.kernels import clocks
from campfire.kernels.interleaving import interleaved, ratio
from campfire.nn.base import SparseLayer
from campfire.nn.entrances import Entrance

Race = Callable[[nn.Module, Example, bool, Mapping[str, Plan]], dict[str, float] | None]
ROUNDS = 5
ORIGINAL = "original"  # the dense model, with ordinary layers


def race(model: nn.Module, x: Example, training: bool, plans: Mapping[str, Plan]) -> dict[str, float] | None:
    """How many times faster the whole model is under each plan than the dense model it stands for, by medians over rounds.

    A forward pass in evaluation mode, or forward and backward of the sum of what comes out. The dense model has ordinary
    layers in the places of sparse ones: no weight is unpacked in it. Modes, buffers, gradients and random generators come
    back as they were; the model is left under the last plan.

    Returns:
        None where the model does not run so by itself, as one that wants labels in training.

    Raises:
        torch.OutOfMemoryError: the GPU has too little memory.
    """
    states = {name: _state(model, plan) for name, plan in plans.items()}
    originals = Originals(model)

    def run(name: str) -> Callable[[], None]:
        def once() -> None:
            _restore(states[name])
            _pass(model, x, training)

        return once

    def dense() -> None:
        _restore(states["dense"])  # which has no entrances
        with originals.in_place() as original:
            _pass(original, x, training)

    with _as_it_was(model, training):
        try:
            dense()
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever a model says that was not given all it wants
            return None
        clock = clocks.of_models(
            next(layer.value.device for layer in model.modules() if isinstance(layer, SparseLayer))
        )
        times = interleaved({ORIGINAL: dense, **{name: run(name) for name in plans}}, ROUNDS, clock)
    return {name: ratio(times, ORIGINAL, name) for name in plans}


@contextlib.contextmanager
def _as_it_was(model: nn.Module, training: bool) -> Iterator[None]:
    grad = contextlib.nullcontext() if training else torch.no_grad()
    with grad, modes_kept(model), buffers_kept(model), generators_kept(model):
        model.train(training)
        yield


def _pass(model: nn.Module, x: Example, training: bool) -> None:
    y = model(*x) if isinstance(x, tuple) else model(x)
    if training and (parameters := [p for p in model.parameters() if p.requires_grad]):
        outputs = [t.float().sum() for t in _tensors(y) if t.requires_grad]
        torch.autograd.grad(outputs, parameters, allow_unused=True)


def _tensors(y: Any) -> list[Tensor]:
    """All in what a model returns."""
    if isinstance(y, Tensor):
        return [y]
    parts = list(y.values()) if isinstance(y, Mapping) else list(y) if isinstance(y, (tuple, list)) else []
    return [t for part in parts for t in _tensors(part)]


State = list[tuple[dict[str, Any], dict[str, Any]]]


def _state(model: nn.Module, plan: Plan) -> State:
    """What applying a plan sets: attributes by owner. To set them again is much faster, kernels being prepared."""
    plan.apply(model)
    found: State = []
    for module in model.modules():
        if isinstance(module, SparseLayer):
            names = ("_assigned", "_choices", "_passes")
            found.append((vars(module), {name: dict(vars(module)[name]) for name in names}))
        hooks = module._forward_pre_hooks
        found.append((hooks, {k: h for k, h in hooks.items() if isinstance(h, Entrance)}))  # pyright: ignore
    return found


def _restore(state: State) -> None:
    for owner, found in state:
        for key in [k for k, value in owner.items() if isinstance(value, Entrance)]:
            del owner[key]
        owner.update(found)
