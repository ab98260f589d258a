"""Carrying optimizer state from one Parameter to another that takes its place."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from campfire.errors import DoesNotFit, UsageError

NOT_ELEMENTWISE = ("Adafactor", "LBFGS", "Muon")  # the step of a weight depends on its row, or on all weights
Convert = Callable[[Tensor], Tensor]


def as_list(given: Optimizer | Iterable[Optimizer] | None) -> list[Optimizer]:
    """One optimizer, several or none, as a list."""
    found = [given] if given is None or isinstance(given, Optimizer) else list(given)
    if not all(o is None or isinstance(o, Optimizer) for o in found):
        raise UsageError(f"optimizer is a torch optimizer, or several; got {given!r}")
    return [o for o in found if o is not None]


def require_carriable(optimizers: Iterable[Optimizer], weights: Iterable[Tensor]) -> None:
    """Raise `DoesNotFit` where the state of a weight cannot be cut down to the survivors."""
    weights = list(weights)
    for optimizer in optimizers:
        name = type(optimizer).__name__
        reasons = [f"{name} does not step each weight by itself"] if name in NOT_ELEMENTWISE else []
        for weight in weights:
            state = optimizer.state.get(weight, {})
            reasons += [f"its state {key!r} is {kind}" for key, kind in _foreign(state, weight)]
        if any(" of shape " in reason for reason in reasons):
            reasons.append(
                "the state of a compressed model is loaded after compress_, in this order: model, pruner, compress_, optimizer"
            )
        if reasons:
            raise DoesNotFit("compression", f"the optimizer {name}", dict.fromkeys(reasons))


def holds(optimizer: Optimizer, parameters: Iterable[Tensor]) -> bool:
    """Whether the optimizer steps any of these."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return any(id(p) in held for p in parameters)


@torch.no_grad()
def carry(optimizers: Iterable[Optimizer], old: Tensor, new: Tensor, convert: Convert) -> None:
    """Put ``new`` in the place of ``old`` in every group; gradient and state of the old shape go through ``convert``."""
    if old.grad is not None:
        new.grad = convert(old.grad)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["params"][:] = [new if p is old else p for p in group["params"]]
        if old in optimizer.state:
            state = optimizer.state.pop(old)
            optimizer.state[new] = {k: convert(v) if _like(v, old) else v for k, v in state.items()}


def nbytes(optimizers: Iterable[Optimizer], weight: Tensor) -> int:
    """Bytes of a weight, its gradient and its state."""
    state = [v for o in optimizers for v in o.state.get(weight, {}).values() if isinstance(v, Tensor)]
    grads = [] if weight.grad is None else [weight.grad]
    return sum(x.numel() * x.element_size() for x in [weight, *grads, *state])


def _like(value: object, weight: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == weight.shape


def _foreign(state: dict[str, object], weight: Tensor) -> Iterable[tuple[str, str]]:
    """State that is neither of the weight's shape nor one number."""
    for key, value in state.items():
        plain = value is None or isinstance(value, (int, float, bool, str))
        if not (plain or _like(value, weight) or (isinstance(value, Tensor) and value.numel() == 1)):
            yield key, f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
