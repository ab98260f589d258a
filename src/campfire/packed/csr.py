"""csr: compressed sparse rows of the matrix [K, C R S]; the floor that every structure stands on."""

import math
from typing import Any

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.packed.base import Layout, Packed
from campfire.packed.checks import why_not_within


class CSR(Layout):
    """``row`` int32 [K + 1]: where each output starts; ``column`` int32 [n]: c R S + r S + s, rising; ``value`` [n].

    ::

        K \\ C R S   0 1 2 3
            0       [. 5 . 6]        row     0 2 2 3
            1       [. . . .]        column  1 3 0
            2       [7 . . .]        value   5 6 7

    >>> from campfire.packed import pack
    >>> weight = torch.tensor([[0.0, 5, 0, 6], [0, 0, 0, 0], [7, 0, 0, 0]])[:, :, None, None]
    >>> parts = pack(weight, Mask(weight != 0)).parts
    >>> parts["row"].tolist(), parts["column"].tolist(), parts["value"].tolist()
    ([0, 2, 2, 3], [1, 3, 0], [5.0, 6.0, 7.0])
    """

    name = "csr"
    parts = {"row": (1, (torch.int32,)), "column": (1, (torch.int32,))}

    def indices(self, mask: Mask, **options: Any) -> dict[str, Tensor]:
        keep = mask.keep.flatten(1)
        row = torch.zeros(len(keep) + 1, dtype=torch.int32, device=keep.device)
        row[1:] = keep.sum(1).cumsum(0)
        return {"row": row, "column": keep.nonzero()[:, 1].to(torch.int32)}

    def value_shape(self, packed: Packed) -> tuple[int, ...]:
        return (packed.parts["column"].numel(),)

    def positions(self, packed: Packed) -> Tensor:
        row, column = packed.parts["row"].long(), packed.parts["column"].long()
        start = torch.arange(len(row) - 1, device=row.device) * math.prod(packed.shape[1:])
        return start.repeat_interleave(row.diff(), output_size=column.numel()) + column

    def why_bad_indices(self, packed: Packed) -> list[str]:
        row, column = packed.parts["row"], packed.parts["column"]
        size = column.numel()
        if row.numel() != packed.shape[0] + 1:
            return [f"row has {packed.shape[0] + 1} entries; got {row.numel()}"]
        if int(row[0]) != 0 or int(row[-1]) != size or bool((row[1:] < row[:-1]).any()):
            return [f"row runs from 0 to {size} and never falls"]
        if reasons := why_not_within("column", column, math.prod(packed.shape[1:])):
            return reasons
        rises = column[1:] > column[:-1]
        rises[row[1:-1][(row[1:-1] > 0) & (row[1:-1] < size)].long() - 1] = True
        return [] if bool(rises.all()) else ["the columns of a row do not rise"]
