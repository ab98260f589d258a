"""Channels in another order, sixteen by sixteen: the tables of native/cpp/moves.h."""

import torch
from torch import Tensor

WIDE = 16


def moves(index: Tensor) -> Tensor:
    """How vectors [index[0], ..., index[15]] and so on are put together from the vectors they stand in, as one int32 table.

    Args:
        index: int [n], n a multiple of 16: place j takes what stands at ``index[j]``.

    >>> table = moves(torch.arange(32).flip(0))
    >>> table[:3].tolist(), table[3:5].tolist(), table[5:9].contiguous().view(torch.uint8).tolist()[:4]
    ([3, 9, 15], [16, 65535], [15, 14, 13, 12])
    """
    index, vectors = index.long().cpu(), len(index) // WIDE
    place = torch.arange(len(index))
    entry, of = torch.unique(place // WIDE * vectors + index // WIDE, return_inverse=True)
    mask = torch.zeros_like(entry).index_add_(0, of, 1 << place % WIDE)
    lanes = torch.zeros(len(entry), WIDE, dtype=torch.uint8)
    lanes[of, place % WIDE] = (index % WIDE).to(torch.uint8)
    entries = torch.cat([torch.stack([entry % vectors * WIDE, mask], 1).to(torch.int32), lanes.view(torch.int32)], 1)
    starts = torch.zeros(vectors + 1, dtype=torch.int32)
    starts[1:] = torch.bincount(entry // vectors, minlength=vectors).cumsum(0) * entries.shape[1]
    return torch.cat([starts + vectors + 1, entries.flatten()])
