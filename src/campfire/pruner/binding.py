"""Binding: the hooks through which a pruner follows the optimizers' steps."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from campfire.errors import CampfireError, UsageError
from campfire.pruner.layer import PrunedLayer
from campfire.pruner.zeroing import Zeroing


class Binding:
    """Keeps dead gradients, weights and optimizer state zero; and tells when a training step begins and ends.

    The first optimizer is the clock. A step that GradScaler skips is none.
    """

    def __init__(
        self,
        layers: Iterable[PrunedLayer],
        optimizer: Optimizer | Iterable[Optimizer],
        before_step: Callable[[], object],
        after_step: Callable[[], object],
        watched: Callable[[], bool] | None = None,
    ):
        self.layers, self.optimizers = list(layers), _optimizers(optimizer)
        held = {id(p) for o in self.optimizers for group in o.param_groups for p in group["params"]}
        if not any(id(layer.weight) in held for layer in self.layers):
            raise UsageError("no pruned weight is in the optimizer; build it from this model's parameters()")
        self._weights = [layer.weight for layer in self.layers]
        self.zeroing = {id(o): Zeroing(self.layers, o) for o in self.optimizers}
        self._before, self._after = before_step, after_step
        self._handles: list[RemovableHandle] = [layer.hook(watched) for layer in self.layers]
        self._handles += [o.register_step_post_hook(self._stepped) for o in self.optimizers]
        self._handles.append(self.optimizers[0].register_step_pre_hook(self._stepping))

    def release(self) -> None:
        """Take every hook off again."""
        for handle in self._handles:
            handle.remove()
        for layer in self.layers:
            layer.watched = layer.dense_grad = None

    @property
    def gradient_scale(self) -> Tensor | None:
        """GradScaler's factor on the gradients before the first optimizer steps: a fused one takes it off in its own kernel."""
        scale = getattr(self.optimizers[0], "grad_scale", None)
        return None if scale is None else torch.as_tensor(scale)

    def forget(self) -> None:
        """Let the optimizers start anew."""
        for optimizer in self.optimizers:
            optimizer.state.clear()

    def _stepping(self, optimizer: Optimizer, *_: Any) -> None:
        if not _skipped(optimizer):
            self._before()

    @torch.no_grad()
    def _stepped(self, optimizer: Optimizer, *_: Any) -> None:
        for layer, weight in zip(self.layers, self._weights, strict=True):
            if layer.weight is not weight:
                raise CampfireError(
                    f"the weight of layer {layer.target.name!r} is another one now (a parametrization, or "
                    "load_state_dict(assign=True)); call detach() before such a change and attach() after it"
                )
        self.zeroing[id(optimizer)]()
        if optimizer is self.optimizers[0] and not _skipped(optimizer):
            self._after()


def _optimizers(given: Optimizer | Iterable[Optimizer]) -> list[Optimizer]:
    found = list(given) if isinstance(given, Iterable) else [given]
    if not found or not all(isinstance(o, Optimizer) for o in found):
        raise UsageError(f"attach() takes a torch optimizer, or several; got {given!r}")
    return found


def _skipped(optimizer: Optimizer) -> bool:
    """Whether GradScaler let a fused optimizer run into an infinity: its kernel then changes nothing."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found.item() > 0)
