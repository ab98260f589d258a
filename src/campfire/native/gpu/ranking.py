"""Triton kernel: ranks inside short rows by counting who beats whom, n of 9 for one."""

# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportArgumentType=false
import triton
import triton.language as tl


@triton.jit
def rank_rows(
    score, alive, out, rows, t, count, LIVES: tl.constexpr, RANKS: tl.constexpr, P: tl.constexpr, ROWS: tl.constexpr
):
    """out [rows, t]: each entry's rank, 0 for the best (``RANKS``), or whether it is one of the ``count`` best that live.

    On a tie the later entry wins; the dead score -1. P: t or the next power of two.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, P)[None, :]
    at, inside = row * t + column, (row < rows) & (column < t)
    x = tl.load(score + at, mask=inside, other=0.0)
    lives = inside
    if LIVES:
        lives = tl.load(alive + at, mask=inside, other=0) != 0
        x = tl.where(lives, x, -1.0)
    own, other = tl.expand_dims(x, 2), tl.expand_dims(x, 1)  # [ROWS, P, P]: entry, its rival
    i, j = tl.expand_dims(column, 2), tl.expand_dims(column, 1)
    beaten = tl.where(j > i, (own > other) == 0, other > own) & (j != i) & (j < t)
    rank = tl.sum(beaten.to(tl.int32), 2)
    result = rank if RANKS else ((rank < count) & lives).to(tl.int32)
    tl.store(out + at, result.to(tl.uint8), mask=inside)
