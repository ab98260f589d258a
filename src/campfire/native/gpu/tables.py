"""Tables that one launch over many tensors reads: who takes what, and where it lies."""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Chunks(NamedTuple):
    """What each program of a launch takes: of which part, and from where on."""

    owners: Tensor  # int32 [chunks]
    places: Tensor  # int32 [chunks]
    firsts: Tensor  # int32 [parts + 1]: the first chunk of each part

    @property
    def number(self) -> int:
        """Of programs."""
        return self.owners.numel()


@functools.lru_cache(maxsize=64)
def chunks(sizes: tuple[int, ...], chunk: int, device: torch.device) -> Chunks:
    """Parts of these sizes in chunks, the last one of each part shorter."""
    sides = torch.tensor([-(-size // chunk) for size in sizes])
    firsts = torch.cat([torch.zeros(1, dtype=torch.int64), sides.cumsum(0)])
    owners = torch.arange(len(sizes)).repeat_interleave(sides)
    places = (torch.arange(len(owners)) - firsts[owners]) * chunk
    return Chunks(*(_moved(x.to(torch.int32), device) for x in (owners, places, firsts)))


def sent(
    rows: Sequence[Sequence[int]] | Sequence[int], device: torch.device, dtype: torch.dtype = torch.int64
) -> Tensor:
    """Numbers on the device."""
    return _moved(torch.tensor(rows, dtype=dtype), device)


def _moved(table: Tensor, device: torch.device) -> Tensor:
    """From pinned memory: nobody waits for the copy."""
    return table if device.type == "cpu" else table.pin_memory().to(device, non_blocking=True)


def addresses(tensors: Iterable[Tensor | None]) -> list[int]:
    """Where each tensor lies; 0 for none."""
    return [0 if x is None else x.data_ptr() for x in tensors]
