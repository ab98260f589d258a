"""Triton kernels: the gradient of the values, deterministic: sums over parts of the pixels, then over the parts, in order.

One program makes up to TEAM boxes of one group of outputs, so that it reads their gradients once for all of them.
"""

# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportArgumentType=false
# pyright: reportPossiblyUnboundVariable=false
import triton
import triton.language as tl

from campfire.kernels.gpu.conv import along, fields


@triton.jit
def _product(
    total, x, dy, at, above, left, counted, source, dh, dw, high, wide, channels,
    BORDERED: tl.constexpr, BK: tl.constexpr, TALL: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """total plus the inputs of one box, at these pixels, times dy [pixels, BN]."""
    inside = counted
    if BORDERED:
        h, v = above + dh, left + dw
        inside = counted & (h >= 0) & (h < high) & (v >= 0) & (v < wide)
    a_at = (at + ((dh * wide + dw) * channels + source * 16))[:, None] + tl.arange(0, BK)[None, :]
    a = tl.load(x + a_at, mask=inside[:, None], other=0.0)
    if TALL:
        total = tl.dot(tl.trans(dy), a, total, input_precision=PRECISION)
    else:
        total = tl.dot(tl.trans(a), dy, total, input_precision=PRECISION)
    return total


@triton.jit
def _put(
    total, out, base, down, across, wanted,
    K0: tl.constexpr, C0: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, TALL: tl.constexpr,
):  # fmt: skip
    """One box, where its values lie."""
    k, c = along(tl.arange(0, BN), down * 16, K0, BN, 1), along(tl.arange(0, BK), across * 16, C0, BK, K0)
    at = k[:, None] + c[None, :] if TALL else c[:, None] + k[None, :]
    tl.store(out + (at + base * 16), total.to(out.dtype.element_ty), mask=wanted)


@triton.jit
def block_values(
    dy, x, out, team, entry, pixels, share, size, rows, columns, high, wide, channels, y_channels,
    IN: tl.constexpr, BORDERED: tl.constexpr, LONG: tl.constexpr, PRECISION: tl.constexpr,
    K0: tl.constexpr, C0: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BP: tl.constexpr,
    TEAM: tl.constexpr, TALL: tl.constexpr,
):  # fmt: skip
    """out [parts, size]: in part p the sum over pixels p ``share`` to (p + 1) ``share`` of x times dy, in the values' places."""
    HIGH: tl.constexpr = BN if TALL else BK  # the larger one: tensor cores take 64 rows at once
    WIDE: tl.constexpr = BK if TALL else BN
    part, row = tl.program_id(1), team + tl.program_id(0) * 4
    first, many, group = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    k = group * BN + tl.arange(0, BN)
    source0, dh0, dw0, base0, down0, across0 = fields(entry + first * 8)
    total0 = tl.zeros((HIGH, WIDE), dtype=tl.float32)
    if TEAM > 1:
        source1, dh1, dw1, base1, down1, across1 = fields(entry + (first + tl.minimum(1, many - 1)) * 8)
        total1 = tl.zeros((HIGH, WIDE), dtype=tl.float32)
    if TEAM > 2:
        source2, dh2, dw2, base2, down2, across2 = fields(entry + (first + tl.minimum(2, many - 1)) * 8)
        source3, dh3, dw3, base3, down3, across3 = fields(entry + (first + tl.minimum(3, many - 1)) * 8)
        total2 = tl.zeros((HIGH, WIDE), dtype=tl.float32)
        total3 = tl.zeros((HIGH, WIDE), dtype=tl.float32)
    last = tl.minimum((part + 1) * share, pixels)
    for begin in range(part * share, last, BP):
        m = begin + tl.arange(0, BP)
        counted = m < last
        n, i, j = m // (rows * columns), m // columns % rows, m % columns
        if LONG:
            n = n.to(tl.int64)
        above, left = i * IN, j * IN
        at = ((n * high + above) * wide + left) * channels
        dy_at = (((n * rows + i) * columns + j) * y_channels)[:, None] + k[None, :]
        g = tl.load(dy + dy_at, mask=counted[:, None], other=0.0)
        # fmt: off
        total0 = _product(total0, x, g, at, above, left, counted, source0, dh0, dw0, high, wide, channels, BORDERED, BK, TALL, PRECISION)
        if TEAM > 1:
            total1 = _product(total1, x, g, at, above, left, counted, source1, dh1, dw1, high, wide, channels, BORDERED, BK, TALL, PRECISION)
        if TEAM > 2:
            total2 = _product(total2, x, g, at, above, left, counted, source2, dh2, dw2, high, wide, channels, BORDERED, BK, TALL, PRECISION)
            total3 = _product(total3, x, g, at, above, left, counted, source3, dh3, dw3, high, wide, channels, BORDERED, BK, TALL, PRECISION)
        # fmt: on
    out += part.to(tl.int64) * size
    _put(total0, out, base0, down0, across0, many > 0, K0, C0, BN, BK, TALL)
    if TEAM > 1:
        _put(total1, out, base1, down1, across1, many > 1, K0, C0, BN, BK, TALL)
    if TEAM > 2:
        _put(total2, out, base2, down2, across2, many > 2, K0, C0, BN, BK, TALL)
        _put(total3, out, base3, down3, across3, many > 3, K0, C0, BN, BK, TALL)


@triton.jit
def add_parts(parts, out, size, PARTS: tl.constexpr, BLOCK: tl.constexpr):
    """out [size]: the sum over parts [PARTS, size], in their order."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for part in range(PARTS):
        total += tl.load(parts + part * size + at, mask=inside, other=0.0)
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)
