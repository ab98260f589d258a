"""Triton kernel: many tensors by their masks, in place, each mask read once."""

# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportArgumentType=false
import triton
import triton.language as tl


@triton.jit
def multiply(masks, tensors, firsts, sizes, channels, taps, owners, places, DTYPE: tl.constexpr, CHUNK: tl.constexpr):
    """Tensors ``firsts[m]`` to ``firsts[m + 1] - 1`` by mask m, bytes [K, C, T] in that order.

    A tensor lies in memory as [K, T, C] (channels_last), or as its mask does: then C = T = 1. NaN stays NaN, as by torch.
    """
    owner = tl.load(owners + tl.program_id(0))
    at = tl.load(places + tl.program_id(0)) + tl.arange(0, CHUNK)
    inside = at < tl.load(sizes + owner)
    c, t = tl.load(channels + owner), tl.load(taps + owner)
    where = (at // (c * t) * c + at % c) * t + at // c % t
    mask = tl.load(masks + owner).to(tl.pointer_type(tl.uint8))
    factor = tl.load(mask + where, mask=inside, other=0).to(tl.float32)
    k, last = tl.load(firsts + owner), tl.load(firsts + owner + 1)
    while k < last:
        x = tl.load(tensors + k).to(tl.pointer_type(DTYPE))
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(x + at, (value * factor).to(DTYPE), mask=inside)
        k += 1
