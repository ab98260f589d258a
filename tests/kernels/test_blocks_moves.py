"""Tables of moves say what the order says."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from campfire.kernels.blocks.moves import WIDE, moves


def followed(table: Tensor, x: Tensor) -> Tensor:
    """x in the order of a table, entry by entry."""
    vectors = len(x) // WIDE
    y = torch.full_like(x, float("nan"))
    for v in range(vectors):
        for entry in table[int(table[v]) : int(table[v + 1])].view(-1, 6):
            lanes = entry[2:].contiguous().view(torch.uint8)
            for lane in range(WIDE):
                if int(entry[1]) >> lane & 1:
                    y[v * WIDE + lane] = x[int(entry[0]) + int(lanes[lane])]
    return y


@given(vectors=st.integers(1, 8), seed=st.integers(0, 2**31))
def test_every_order(vectors: int, seed: int) -> None:
    index = torch.randperm(vectors * WIDE, generator=torch.Generator().manual_seed(seed))
    x = torch.rand(len(index))
    assert torch.equal(followed(moves(index.to(torch.int32)), x), x[index])


def test_sources_are_few_where_rows_are_sorted() -> None:
    index = torch.arange(64).view(2, 32).T.reshape(64)  # two groups of 32 rows, by turns
    assert (len(moves(index)) - 5) // 6 == 8
