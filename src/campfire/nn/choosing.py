"""Which kernels serve a sparse layer, pass by pass, for every dtype in which it may be asked to run."""

import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from campfire.errors import DoesNotFit, UnknownName
from campfire.kernels import KERNELS, Conv, Prepared
from campfire.kernels.choice import Choice
from campfire.kernels.dispatch import untimed
from campfire.kernels.passes import Passes
from campfire.packed import Packed

AUTOCAST = (torch.bfloat16, torch.float16)


class OnFirstUse(Prepared):
    """A kernel that is prepared when it first runs: of the kernels of all dtypes most are never needed."""

    def __init__(self, prepare: Callable[[], Prepared]):
        self._prepare: Callable[[], Prepared] | None = prepare
        self._prepared: Prepared | None = None

    def ready(self) -> Any:
        """The kernel itself."""
        if self._prepared is None:
            assert self._prepare is not None
            self._prepared, self._prepare = self._prepare(), None
        return self._prepared

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        return self.ready().forward(x, value, bias, residual, relu)

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        return self.ready().d_input(dy, value, size)

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        return self.ready().d_values(dy, x)

    def hold(self) -> list[Tensor]:
        return self.ready().hold()


def choices_of(
    packed: Packed, conv: Conv, kernel: str, assigned: Mapping[torch.dtype, Choice]
) -> dict[torch.dtype, Choice]:
    """The choice for the dtype of the values, and for those that autocast may ask for.

    The assigned one where it can serve, else the kernel asked for, else what the cost model says; dense where it cannot,
    and on the meta device, where no kernel can read its indices.
    """
    value, found = packed.parts["value"], {}
    if value.device.type == "meta":
        return dict.fromkeys((value.dtype, *AUTOCAST), Choice())
    for dtype in dict.fromkeys((value.dtype, *AUTOCAST)):
        choice = assigned.get(dtype) or (untimed(packed, conv, dtype) if kernel == "auto" else Choice.of(kernel))
        found[dtype] = Choice() if choice.why_not(packed, conv, dtype, value.device) else choice
    return found


def passes_of(
    packed: Packed, conv: Conv, value_shape: tuple[int, ...], choices: Mapping[torch.dtype, Choice]
) -> dict[torch.dtype, Passes]:
    """The passes of every choice; a kernel is prepared once, whatever dtypes and passes it serves."""

    @functools.cache
    def ready(kernel: str) -> OnFirstUse:
        return OnFirstUse(partial(KERNELS[kernel].prepare, packed, conv))

    def passes(choice: Choice) -> Passes:
        forward, d_input, d_values = map(ready, choice.kernels)
        library = forward.ready if choice.dense else None
        return Passes(packed.shape, conv, value_shape, forward, choice.format, d_input, d_values, library)

    return {dtype: passes(choice) for dtype, choice in choices.items()}


def require_kernel(packed: Packed, conv: Conv, kernel: str) -> None:
    """Raise `UnknownName` where there is no such kernel, `DoesNotFit` where it cannot serve this layer."""
    if kernel == "auto":
        return
    if kernel not in KERNELS:
        raise UnknownName("kernel", kernel, ["auto", *KERNELS])
    require_choice(packed, conv, Choice.of(kernel), packed.parts["value"].dtype)


def require_choice(packed: Packed, conv: Conv, choice: Choice, dtype: torch.dtype) -> None:
    """The same for a choice: every kernel of it must serve."""
    if reasons := choice.why_not(packed, conv, dtype, packed.parts["value"].device):
        what = f"kernel {choice.forward!r}" if choice == Choice.of(choice.forward) else f"the choice {choice}"
        raise DoesNotFit(what, f"a weight of shape {packed.shape} in {packed.layout!r}", reasons)
