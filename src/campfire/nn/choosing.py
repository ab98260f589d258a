"""Which kernel serves a sparse layer, for every dtype in which it may be asked to run."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from campfire.errors import DoesNotFit, UnknownName
from campfire.kernels import KERNELS, Conv, Kernel, Prepared
from campfire.kernels.ops import Passes
from campfire.packed import Packed

AUTOCAST = (torch.bfloat16, torch.float16)


class OnFirstUse(Prepared):
    """A kernel that is prepared when it first runs: of the kernels of all dtypes most are never needed."""

    def __init__(self, name: str, prepare: Callable[[], Prepared]):
        self.name = name
        self._prepare: Callable[[], Prepared] | None = prepare
        self._prepared: Prepared | None = None

    def _ready(self) -> Prepared:
        if self._prepared is None:
            assert self._prepare is not None
            self._prepared, self._prepare = self._prepare(), None
        return self._prepared

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        return self._ready().forward(x, value, bias, residual, relu)

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        return self._ready().d_input(dy, value, size)

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        return self._ready().d_values(dy, x)


def passes_of(packed: Packed, conv: Conv, kernel: str, value_shape: tuple[int, ...]) -> dict[torch.dtype, Passes]:
    """The passes by the dtype they run in: that of the values, and those that autocast may choose."""
    value = packed.parts["value"]
    served: dict[str, Passes] = {}
    found: dict[torch.dtype, Passes] = {}
    for dtype in dict.fromkeys((value.dtype, *AUTOCAST)):
        chosen = _first(kernel, packed, conv, dtype, value.device)
        if chosen.name not in served:
            ready = OnFirstUse(chosen.name, partial(chosen.prepare, packed, conv))
            served[chosen.name] = Passes(packed.shape, conv, value_shape, ready, chosen.format)
        found[dtype] = served[chosen.name]
    return found


def name_of(passes: Passes) -> str:
    """The kernel of the forward pass."""
    return passes.forward.name if isinstance(passes.forward, OnFirstUse) else type(passes.forward).__name__


def require_kernel(packed: Packed, conv: Conv, kernel: str) -> None:
    """Raise `UnknownName` where there is no such kernel, `DoesNotFit` where it cannot serve this layer."""
    if kernel == "auto":
        return
    if kernel not in KERNELS:
        raise UnknownName("kernel", kernel, ["auto", *KERNELS])
    value = packed.parts["value"]
    if reasons := KERNELS[kernel].why_not(packed, conv, value.dtype, value.device):
        raise DoesNotFit(f"kernel {kernel!r}", f"a weight of shape {packed.shape} in {packed.layout!r}", reasons)


def _first(kernel: str, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> Kernel:
    """The kernel asked for, or the most special that serves; the reference where none does."""
    asked = [k for k in reversed(KERNELS.values()) if k.name == kernel or (kernel == "auto" and k.name != "reference")]
    return next((k for k in asked if not k.why_not(packed, conv, dtype, device)), KERNELS["reference"])
