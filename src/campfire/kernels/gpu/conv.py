"""Triton kernel: a convolution from blocks, as products of matrices; the same code makes outputs and gradients of inputs.

One program makes BM pixels x one group of results. It walks the group's list of blocks: of each it takes BK channels of the
source at BM shifted pixels, zero beyond the border, times a box of weights. Nothing is unfolded in memory.
"""

# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportArgumentType=false
import triton
import triton.language as tl


@triton.jit
def along(i, step, EDGE: tl.constexpr, SIZE: tl.constexpr, STRIDE: tl.constexpr):
    """Where entry i of SIZE lies, in tiles of EDGE that are ``step`` apart."""
    return i * STRIDE if SIZE <= EDGE else (i // EDGE) * step + (i % EDGE) * STRIDE


@triton.jit
def fields(row):
    """The fields of an entry of `campfire.kernels.gpu.index.Reads`."""
    return tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3), tl.load(row + 4), tl.load(row + 5)


@triton.jit
def block_conv(
    x, w, y, bias, residual, order, start, rank, entry,
    pixels, rows, columns, groups, high, wide, channels, y_high, y_wide, y_channels,
    IN: tl.constexpr, OUT: tl.constexpr, TURNED: tl.constexpr, BORDERED: tl.constexpr, LONG: tl.constexpr,
    BIAS: tl.constexpr, RESIDUAL: tl.constexpr, RELU: tl.constexpr, ORDERED: tl.constexpr, PRECISION: tl.constexpr,
    K0: tl.constexpr, C0: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr, BAND: tl.constexpr,
):  # fmt: skip
    """y [N, y_high, y_wide, y_channels] from x [N, high, wide, channels].

    A phase is a lattice of N x rows x columns = ``pixels`` results, OUT apart; they read x IN apart. TURNED: results are
    inputs of the layer. Programs go through BAND tiles of pixels, the longest lists first, before they take the next ones.
    """
    tiles = tl.cdiv(pixels, BM)
    phase = tl.program_id(0) // (tiles * groups)
    within = tl.program_id(0) % (tiles * groups)
    first = within // (BAND * groups) * BAND
    many = tl.minimum(tiles - first, BAND)
    within = within % (BAND * groups)
    group = tl.load(rank + phase * groups + within // many)
    pixel = (first + within % many) * BM + tl.arange(0, BM)
    m = tl.minimum(pixel, pixels - 1)  # the last tile computes some pixels again, and does not store them
    n, i, j = m // (rows * columns), m // columns % rows, m % columns
    if LONG:
        n = n.to(tl.int64)
    above, left = i * IN, j * IN
    at = ((n * high + above) * wide + left) * channels
    k, c = tl.arange(0, BK), tl.arange(0, BN)
    total = tl.zeros((BM, BN), dtype=tl.float32)
    begin, end = tl.load(start + phase * groups + group), tl.load(start + phase * groups + group + 1)
    row = entry + begin * 8
    source, dh, dw, base, down, across = fields(row)
    for _ in range(begin, end):
        a_at = (at + ((dh * wide + dw) * channels + source * 16))[:, None] + k[None, :]
        if BORDERED:
            h, v = above + dh, left + dw
            inside = (h >= 0) & (h < high) & (v >= 0) & (v < wide)
            a = tl.load(x + a_at, mask=inside[:, None], other=0.0)
        else:
            a = tl.load(x + a_at)
        if TURNED:
            b_at = along(k, down * 16, K0, BK, 1)[:, None] + along(c, across * 16, C0, BN, K0)[None, :]
        else:
            b_at = along(k, across * 16, C0, BK, K0)[:, None] + along(c, down * 16, K0, BN, 1)[None, :]
        total = tl.dot(a, tl.load(w + (b_at + base * 16)), total, input_precision=PRECISION)
        row += 8
        source, dh, dw, base, down, across = fields(row)  # a step ahead, so that no load of the next step waits for it
    out_h, out_w = i * OUT + phase // OUT, j * OUT + phase % OUT
    result = group * BN + c
    if ORDERED:
        result = tl.load(order + result)
    y_at = (((n * y_high + out_h) * y_wide + out_w) * y_channels)[:, None] + result[None, :]
    stored = ((pixel < pixels) & (out_h < y_high) & (out_w < y_wide))[:, None]
    if BIAS:
        total += tl.load(bias + result).to(tl.float32)[None, :]
    if RESIDUAL:
        total += tl.load(residual + y_at, mask=stored, other=0.0).to(tl.float32)
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # NaN stays NaN
    tl.store(y + y_at, total.to(y.dtype.element_ty), mask=stored)
