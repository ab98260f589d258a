"""two-four: 2 of every 4 neighbouring inputs, on sparse tensor cores, by PyTorch's own semi-structured tensors."""

import torch
from torch import Tensor
from torch.sparse import to_sparse_semi_structured

from campfire.kernels.base import Conv, Kernel, Prepared
from campfire.kernels.formats import to_format
from campfire.kernels.gpu import toolchain
from campfire.kernels.reference import Dense
from campfire.packed import LAYOUTS, Packed

ROWS, COLUMNS = 32, 64  # that outputs and inputs must be multiples of


class TwoFour(Kernel):
    """Linear layers (1x1 convolutions are some) of masks such as ``nm:n=2,m=4``; bfloat16, float16 on a GPU.

    Only the forward pass: transposed, as the gradient of the input needs it, the weight is not 2:4, and the gradient of
    the values is a dense product of which half is picked. Bounds: the values are compressed anew in every call.
    """

    name = "two-four"
    layouts = tuple(LAYOUTS)

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        reasons, shape = super().why_not(packed, conv, dtype, device), packed.shape
        if device.type != "cuda":
            return [*reasons, f"it runs on a GPU; got {device.type}"]
        if shape[2:] != (1, 1) or conv != Conv():
            reasons.append("it serves linear layers, and 1x1 convolutions of stride 1 without padding")
        if dtype not in (torch.bfloat16, torch.float16):
            reasons.append(f"it computes in bfloat16 and float16; got {str(dtype).removeprefix('torch.')}")
        if shape[0] % ROWS or shape[1] % COLUMNS:
            reasons.append(f"outputs are a multiple of {ROWS}, inputs of {COLUMNS}; got {shape[0]} and {shape[1]}")
        return reasons or _why_not_here(device) or _why_not_two_of_four(packed)

    def work(self, packed: Packed, conv: Conv) -> float:
        return 0.5

    def prepare(self, packed: Packed, conv: Conv) -> "TwoFourPasses":
        return TwoFourPasses(packed, conv)


class TwoFourPasses(Prepared):
    """The forward pass through a semi-structured weight; the others by the dense library."""

    def __init__(self, packed: Packed, conv: Conv):
        self.dense = Dense(packed, conv)

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        n, channels, high, wide = x.shape
        pixels = to_format(x, "nhwc").permute(0, 2, 3, 1).reshape(-1, channels)
        weight = to_sparse_semi_structured(self.dense.weight(value).flatten(1).contiguous())
        y = torch.nn.functional.linear(pixels, weight, None if bias is None else bias.to(x.dtype))
        y = y.view(n, high, wide, -1).permute(0, 3, 1, 2)
        y = y if residual is None else y + residual
        return y.relu() if relu else y

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        return self.dense.d_input(dy, value, size)

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        return self.dense.d_values(dy, x)


def _why_not_here(device: torch.device) -> list[str]:
    if not torch.cuda.is_available():
        return ["no CUDA device is there"]
    have = torch.cuda.get_device_capability(device)
    return (
        [f"compute capability 8.0 or more is wanted; this GPU has {have[0]}.{have[1]}"]
        if have < toolchain.OLDEST
        else []
    )


def _why_not_two_of_four(packed: Packed) -> list[str]:
    positions = LAYOUTS[packed.layout].positions(packed)
    most = int(torch.bincount(positions // 4).max()) if len(positions) else 0
    return [f"2 of every 4 neighbouring inputs live, or fewer; here up to {most}"] if most > 2 else []
