"""The smallest kernel: what cannot compile and run this one, runs none."""

# pyright: reportArgumentType=false
import torch
import triton
import triton.language as tl


@triton.jit
def _double(x, y, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(y + at, 2 * tl.load(x + at))


def probe(device: torch.device) -> None:
    """Compile it, run it, and look at what came out; raise whatever goes wrong."""
    x = torch.ones(16, device=device)
    y = torch.zeros_like(x)
    _double[(1,)](x, y, 16)
    if not torch.equal(y, 2 * x):
        raise RuntimeError("a kernel of 16 doublings gave wrong numbers")
