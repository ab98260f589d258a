"""blocks-amx: blocks of 32 inputs x 16 or 32 outputs in bfloat16, in NHWC, by tile products (AMX); sums in float32."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire import native
from campfire.kernels.base import Conv
from campfire.kernels.blocks.bf16 import Bf16Passes, BlocksBf16, Reads, call, nhwc
from campfire.kernels.blocks.bf16_index import Columns, Pairs
from campfire.kernels.blocks.index import Tiles
from campfire.native.flavours import has_amx
from campfire.packed import Packed

RUN = 16  # pixels: rows of a tile
INPUTS = 32  # of a block: 16 pairs, what a tile product sums over
POSITIONS = 262144  # pairs of pixels x inputs that the gradient of the values works on at a time: half a second cache


class BlocksAmx(BlocksBf16):
    """Two runs of 16 pixels share a block of 32 inputs x 32 outputs: 4 tile products for 4 loads; bfloat16 on a CPU with AMX.

    Written for that processor and tested by emulation of its tiles, but never timed. d_input under blocks of 16 outputs fills
    tiles by half.
    """

    name = "blocks-amx"
    serves, least = "bfloat16 on a CPU with AMX", (16, 32)

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        if reasons := super().why_not(packed, conv, dtype, device):
            return reasons
        columns = Columns.of(Tiles.of(packed))
        together = columns is not None and columns.lanes == INPUTS
        return [] if together else ["its blocks are 32 inputs side by side that live together; here they do not"]

    def why_no_code(self) -> list[str]:
        if not has_amx():
            return ["no AMX on this CPU"]
        library = native.library("blocks_amx_conv")
        if library is None:
            return ["native code is off, or no compiler was found"]
        if not library.campfire_blocks_amx_built():
            return ["it needs flavour amx (CAMPFIRE_ISA), and a compiler that knows AMX"]
        refusal = library.campfire_blocks_amx_refused()
        return [f"the system does not let this process use AMX (error {refusal})"] if refusal else []

    def prepare(self, packed: Packed, conv: Conv) -> "AmxPasses":
        return AmxPasses(packed, conv)


@dataclass(frozen=True)
class Blocks:
    """Blocks of 32 channels at one tap, in the order of their row groups."""

    start: Tensor  # int32 [groups + 1]
    block: Tensor  # int32 [blocks]: of channels
    tap: Tensor  # int32 [blocks]
    source: Tensor  # int32 [blocks, 32]: where a channel's weights lie in the values

    @classmethod
    def of(cls, columns: Columns, groups: int) -> "Blocks":
        order = columns.group.argsort(stable=True)
        start = torch.zeros(groups + 1, dtype=torch.int32)
        start[1:] = torch.bincount(columns.group, minlength=groups).cumsum(0)
        return cls(start, columns.block[order].int(), columns.tap[order].int(), columns.source[order].contiguous())

    def pairs(self) -> Pairs:
        """The pairs of their channels, 16 of each one after the other."""
        half = INPUTS // 2
        channel = self.block.view(-1, 1) * INPUTS + 2 * torch.arange(half, dtype=torch.int32)
        source = self.source[:, ::2].reshape(-1).contiguous()
        return Pairs(self.start * half, channel.view(-1), self.tap.repeat_interleave(half), source)


def side_by_side(images: int, columns: int) -> int:
    """How many images share runs of 16 pixels where rows have so many ``columns``: more only if a fifth of the runs is saved.

    >>> [side_by_side(16, columns) for columns in (56, 14, 8, 7, 4, 1)], side_by_side(1, 7)
    ([1, 1, 2, 2, 4, 16], 1)
    """
    best, fewest = 1, images * -(-columns // RUN)
    for side in (2, 4, 8, 16):
        if (runs := -(-images // side) * -(-columns // (RUN // side))) <= 0.8 * fewest:
            best, fewest = side, runs
    return best


class AmxPasses(Bf16Passes):
    """The passes of blocks-bf16, from the same weights in pairs, block by block."""

    def __init__(self, packed: Packed, conv: Conv):
        super().__init__(packed, conv)
        assert self.columns is not None, "why_not asks first"
        self.rows = 16 if self.rows % 32 else 32
        self.columns = self.columns.cut(self.tiles.tile[0], self.rows)
        self.blocks = Blocks.of(self.columns, self.tiles.shape[0] // self.rows)
        self.pairs = self.blocks.pairs()

    def beside(self, images: int, columns: int) -> int:
        return 1 if self._flat else side_by_side(images, columns)

    def reads(self, start: Tensor, at: Tensor, source: Tensor, depth: int, side: int) -> Reads:
        return Reads(start // depth, at[::depth].contiguous(), source, depth, side)

    def convolve(self, reads: Reads, sizes: Tensor, x: Tensor, weight: Tensor, *rest: Tensor | int | None) -> None:
        call("amx_conv", sizes, x, reads.start, reads.at, weight, *rest, reads.depth, reads.side)

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        if dy.dtype != torch.bfloat16 or x.dtype != torch.bfloat16:
            return self._dense.d_values(dy, x)
        dy, x, blocks = nhwc(dy), nhwc(x), self.blocks
        gradient = torch.empty(self.value_shape, dtype=x.dtype)
        positions = max(64, POSITIONS // x.shape[1])
        call("amx_d_values", self.sizes(x, dy), x, blocks.start, blocks.block, blocks.tap, blocks.source, dy,
             self.rows, self.order, gradient, positions)  # fmt: skip
        return gradient
