"""csr: compressed sparse rows of the matrix [K, C R S]; the floor that every structure stands on."""

import math

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.packed.base import Layout, Packed


class CSR(Layout):
    """``row`` int32 [K + 1]: where each output starts; ``column`` int32 [n]: c R S + r S + s, rising; ``value`` [n]."""

    name = "csr"

    def pack(self, weight: Tensor, mask: Mask) -> dict[str, Tensor]:
        matrix, keep = weight.flatten(1), mask.keep.flatten(1)
        row = torch.zeros(len(matrix) + 1, dtype=torch.int32, device=weight.device)
        row[1:] = keep.sum(1).cumsum(0)
        return {"row": row, "column": keep.nonzero()[:, 1].to(torch.int32), "value": matrix[keep]}

    def unpack(self, packed: Packed) -> Tensor:
        row, column, value = (packed.parts[p] for p in ("row", "column", "value"))
        lengths = row.diff().long()
        rows = torch.repeat_interleave(torch.arange(len(lengths), device=row.device), lengths)
        dense = value.new_zeros(packed.shape[0], math.prod(packed.shape[1:]))
        dense[rows, column.long()] = value
        return dense.reshape(packed.shape)

    def why_invalid(self, packed: Packed) -> list[str]:
        if sorted(packed.parts) != ["column", "row", "value"]:
            return [f"csr has the parts column, row and value; got {sorted(packed.parts)}"]
        row, column, value = (packed.parts[p] for p in ("row", "column", "value"))
        size = column.numel()
        if row.dtype != torch.int32 or column.dtype != torch.int32 or not value.is_floating_point():
            return ["row and column are int32 and value is floating point"]
        if row.shape != (packed.shape[0] + 1,) or column.dim() != 1 or value.shape != column.shape:
            return [f"row has {packed.shape[0] + 1} entries, column and value the same number"]
        if int(row[0]) != 0 or int(row[-1]) != size or bool((row.diff() < 0).any()):
            return [f"row runs from 0 to {size} and never falls"]
        if size and not (int(column.min()) >= 0 and int(column.max()) < math.prod(packed.shape[1:])):
            return [f"a column lies outside [0, {math.prod(packed.shape[1:])})"]
        rises = column.diff() > 0
        rises[row[1:-1][(row[1:-1] > 0) & (row[1:-1] < size)].long() - 1] = True
        return [] if bool(rises.all()) else ["the columns of a row do not rise"]
