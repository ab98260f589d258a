"""blocks-gpu: blocks of 16 x 16 weights or more, in NHWC, on tensor cores, by Triton; all three passes from one packed copy."""

import math

import torch
from torch import Tensor

from campfire.kernels.base import Conv, Kernel, Prepared
from campfire.kernels.formats import to_format
from campfire.kernels.gpu import toolchain
from campfire.kernels.gpu.configs import Config
from campfire.kernels.gpu.index import UNIT, Blocks, Reads, sides
from campfire.kernels.reference import Dense
from campfire.native.gpu.trouble import cause, tell
from campfire.packed import LAYOUTS, Packed
from campfire.packed.tile import read_tile

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


class GpuBlocks(Kernel):
    """Every block is a product of matrices: pixels x inputs times inputs x outputs; bfloat16, float16, TF32 on a GPU.

    The boxes that live whole are found in the packed weight, whatever tiles it is packed in. Bounds: each program reads its
    pixels anew for each block, so small blocks are bound by the second cache, not by arithmetic: 64 x 64 and 128 x 32 pay,
    16 x 16 run.
    """

    name = "blocks-gpu"
    layouts = ("unit", "grouped")
    serves, least = "bfloat16, float16, TF32 on a GPU", (16, 16)

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        if reasons := super().why_not(packed, conv, dtype, device) or toolchain.why_not_on(device):
            return reasons
        return why_not_blocks(packed, conv, dtype)

    def prepare(self, packed: Packed, conv: Conv) -> "GpuPasses":
        return GpuPasses(packed, conv)


def why_not_blocks(packed: Packed, conv: Conv, dtype: torch.dtype) -> list[str]:
    """Reasons why no GPU runs this layer by blocks; [] when one can."""
    reasons, tile, shape = [], read_tile(packed.parts["tile"]), packed.shape
    if tile[2:] not in (shape[2:], (1, 1)):
        reasons.append(f"a tile holds one tap or all; got {tile[2]}x{tile[3]} of {shape[2]}x{shape[3]}")
    elif min(found := sides(packed)) < UNIT:
        reasons.append(
            f"tensor cores want blocks of {UNIT} outputs x {UNIT} inputs side by side, or more; this mask has "
            f"{found[0]} x {found[1]} (64 x 64 and 128 x 32 pay: hrbp:rows=64,channels=64,inputs=neighbours)"
        )
    if conv.groups != 1:
        reasons.append(f"groups is 1; got {conv.groups}")
    if dtype not in DTYPES:
        reasons.append(f"it computes in bfloat16, float16 and float32; got {str(dtype).removeprefix('torch.')}")
    return reasons


class GpuPasses(Prepared):
    """The lists of one layer, made once; on a device without Triton, in other dtypes, and where it fails, the dense library."""

    def __init__(self, packed: Packed, conv: Conv):
        self.conv, self.shape, self.blocks = conv, packed.shape, Blocks.of(packed)
        self.ahead, self.back = Reads.ahead(self.blocks, conv), Reads.back(self.blocks, conv)
        self.teams = {size: self.ahead.teams(size) for size in (1, 2, 4)}  # of boxes that d_values sums together
        self.value_shape = LAYOUTS[packed.layout].value_shape(packed)
        order = packed.parts.get("order")
        in_order = order is None or bool((order == torch.arange(len(order), device=order.device)).all())
        self.order = None if in_order or order is None else order.contiguous()
        self.dense = Dense(packed, conv)
        self.bordered = conv.padding > 0 or self.shape[2:] != (1, 1)
        self.size = math.prod(self.shape)
        self.chosen: dict[tuple[object, ...], Config] = {}
        self._failed = False

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        if self._serves(x, value):
            try:
                from campfire.kernels.gpu.launch import forward

                rest = None if residual is None else to_format(residual, "nhwc")
                return forward(self, to_format(x, "nhwc"), value.contiguous(), bias, rest, relu)
            except Exception as error:
                self._give_up(error)
        return self.dense.forward(x, value, bias, residual, relu)

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        if self._serves(dy, value):
            try:
                from campfire.kernels.gpu.launch import d_input

                return d_input(self, self._ordered(dy), value.contiguous(), size)
            except Exception as error:
                self._give_up(error)
        return self.dense.d_input(dy, value, size)

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        if self._serves(dy, x):
            try:
                from campfire.kernels.gpu.launch import d_values

                return d_values(self, self._ordered(dy), to_format(x, "nhwc"))
            except Exception as error:
                self._give_up(error)
        return self.dense.d_values(dy, x)

    def _ordered(self, dy: Tensor) -> Tensor:
        """In NHWC, its channels in the order of the rows: 2 bytes at a time, here, once, not in every product."""
        dy = to_format(dy, "nhwc")
        if self.order is None:
            return dy
        return dy.permute(0, 2, 3, 1).index_select(3, self.order).permute(0, 3, 1, 2)

    def _serves(self, x: Tensor, other: Tensor) -> bool:
        right = x.dtype == other.dtype and x.dtype in DTYPES and x.numel() > 0
        return right and not self._failed and toolchain.runs_on(x.device)

    def _give_up(self, error: Exception) -> None:
        """One warning, and the dense library from now on; what is no fault of the kernels is raised again."""
        if isinstance(error, torch.OutOfMemoryError) or toolchain.interpreted():
            raise error
        self._failed = True
        tell("blocks", cause(error))
