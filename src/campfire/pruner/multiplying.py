"""Multiplication: layers' tensors by their masks, all at once."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from campfire.native import masks as native
from campfire.native.gpu import masks as gpu
from campfire.pruner.layer import PrunedLayer

Kind = tuple[torch.device, torch.dtype]
Item = tuple[PrunedLayer, list[Tensor]]


class Multiplication:
    """Natively in one pass over everything, on a GPU in one launch for each dtype; by torch what is left over.

    Args:
        was: the `ordered` masks of layers whose tensors were multiplied by those before: that may spare work.
    """

    def __init__(self, parts: Iterable[Item], was: Mapping[PrunedLayer, Tensor] = MappingProxyType({})):
        self._runs: list[Callable[[], None]] = []
        self._tensors: list[Tensor] = []
        self._factors: list[Tensor] = []
        work: dict[Kind | None, list[Item]] = {}
        for layer, tensors in parts:
            for kind in {_kind(x, layer.weight) for x in tensors} if layer.mask is not None else ():
                work.setdefault(kind, []).append((layer, [x for x in tensors if _kind(x, layer.weight) == kind]))
        for kind, items in work.items():
            run = None if kind is None else _run(kind[0], items, was)
            if run is not None:
                self._runs.append(run)
            else:
                self._leave(items)

    def _leave(self, items: list[Item]) -> None:
        """To torch."""
        for layer, tensors in items:
            if (factor := layer.factor()) is not None:
                self._tensors += [x.detach() for x in tensors]  # the same memory, without autograd's bookkeeping
                self._factors += [factor] * len(tensors)

    def __call__(self) -> None:
        for run in self._runs:
            run()
        if self._tensors:
            torch._foreach_mul_(self._tensors, self._factors)  # pyright: ignore[reportPrivateImportUsage]


def _run(device: torch.device, items: list[Item], was: Mapping[PrunedLayer, Tensor]) -> Callable[[], None] | None:
    """One function for all of them; None where there is no such code."""
    if gpu.serves(device):  # reads masks in their own order, whatever that of the weight
        return gpu.multiplication([(layer.keep.contiguous(), tensors) for layer, tensors in items])
    work = [(layer.ordered(), tensors) for layer, tensors in items]
    return native.multiplication(work, [was.get(layer) for layer, _ in items])


def _kind(x: Tensor, like: Tensor) -> Kind | None:
    """What tensors share that one function multiplies; None where none can walk through ``x`` and ``like`` in one order."""
    plain = type(x) in (Tensor, nn.Parameter) and not x.is_inference() and x.device == like.device
    served = gpu.DTYPES if gpu.serves(x.device) else (torch.float32,) if x.device.type == "cpu" else ()
    alike = plain and x.dtype in served and _order(x) is not None and _order(x) is _order(like)
    return (x.device, x.dtype) if alike else None


def _order(x: Tensor) -> torch.memory_format | None:
    """The memory format of a dense tensor."""
    if x.is_contiguous():
        return torch.contiguous_format
    return torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else None
