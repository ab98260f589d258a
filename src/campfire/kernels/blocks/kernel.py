"""blocks: tiles of 16 or more outputs, in NHWC, by native code; all three passes from one packed copy."""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from campfire import native
from campfire.kernels.base import Conv, Kernel, Prepared
from campfire.kernels.blocks.index import Entries, Phases, Reads, Sets, Tiles
from campfire.kernels.blocks.moves import moves
from campfire.kernels.reference import Dense
from campfire.packed import LAYOUTS, Packed
from campfire.packed.tile import read_tile

STRIP = 65536  # floats of padded input or gradient that a thread works on at a time: a quarter of a second cache
CACHE = 196608  # floats of gradients, turned over, that a thread works on at a time: three quarters of a second cache
APART = 16  # floats between the pixels of a copy: powers of two would share a few sets of the first cache
MOVED = 256  # outputs, at most, that are put in order vector by vector; of more, a vector comes from too many others
BATCH = 512  # most pixels that the gradient of the values sums up before it looks at other weights


class Blocks(Kernel):
    """Vectors of 16 or 32 outputs share every input they read; float32 on the CPU, other dtypes run dense.

    Bounds: 28 FMAs for 16 loads in the forward pass, so it runs at the speed of dense code (0.8 to 0.9 of the
    library's) and gains 1 / density, until reading x and writing y is what takes the time.
    """

    name = "blocks"
    layouts = ("unit", "grouped")
    serves, least = "float32 on a CPU", (16, 1)

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        if reasons := super().why_not(packed, conv, dtype, device):
            return reasons
        tile, reasons = read_tile(packed.parts["tile"]), []
        if tile[0] % 16:
            reasons.append(f"its vectors are 16 outputs; the tile has {tile[0]}")
        if tile[2:] not in (packed.shape[2:], (1, 1)):
            reasons.append(
                f"a tile holds one tap or all; got {tile[2]}x{tile[3]} of {packed.shape[2]}x{packed.shape[3]}"
            )
        if conv.dilation != 1 or conv.groups != 1:
            reasons.append(f"dilation and groups are 1; got {conv.dilation} and {conv.groups}")
        if dtype != torch.float32 or device.type != "cpu":
            reasons.append(f"it computes in float32 on a CPU; got {dtype} on {device.type}")
        if not reasons and native.library("blocks_forward") is None:
            reasons.append("native code is off, or no compiler was found")
        return reasons

    def prepare(self, packed: Packed, conv: Conv) -> "BlockPasses":
        return BlockPasses(packed, conv)


class BlockPasses(Prepared):
    """The indices of one layer; offsets are made once for each width of its input."""

    def __init__(self, packed: Packed, conv: Conv):
        self.conv, self.tiles = conv, Tiles.of(packed)
        self.entries, self.sets = Entries.of(self.tiles), Sets.of(self.tiles)
        self.phases = Phases.of(conv, self.tiles.shape[2:])  # pyright: ignore[reportArgumentType]
        self.value_shape = LAYOUTS[packed.layout].value_shape(packed)
        order = packed.parts.get("order")
        in_order = order is None or bool((order == torch.arange(len(order))).all())
        self.order = None if in_order or order is None else order.contiguous()
        self._dense = Dense(packed, conv)
        self._pointwise = self.tiles.shape[2:] == (1, 1) and conv.padding == 0
        self._many_pixels = self._pointwise and conv.stride == 1 and self.tiles.tile[0] % 32 != 0  # 28 in a tile
        self._rows = (self.sets.group * self.tiles.tile[0]).to(torch.int32)
        self._place = None if self.order is None else self.order.argsort().to(torch.int32)
        self._gather, self._restore = _moves(self.order), _moves(self._place)  # rows from outputs, and back
        self._offsets: dict[tuple[int, int], Tensor] = {}
        self._reads: dict[int, Reads] = {}
        self._known: dict[tuple[int, ...], Tensor] = {}
        self._functions: dict[str, Any] = {}

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        if x.dtype != torch.float32 or value.dtype != torch.float32:
            return self._dense.forward(x, value, bias, residual, relu)
        x, y = _nhwc(x), _empty(self.conv.output(tuple(x.shape), self.tiles.shape), x)
        residual = None if residual is None else _nhwc(residual)
        bias = None if bias is None else bias.contiguous()
        channels, padded = x.shape[1], x.shape[3] + 2 * self.conv.padding
        pixel = channels + APART if self.conv.padding or (self._many_pixels and channels % 512 == 0) else 0
        if (key := (padded, pixel)) not in self._offsets:
            self._offsets[key] = self.entries.offsets(self.tiles.shape[3], padded, pixel or channels)
        at = self._offsets[key]
        self._call("forward", self._sizes(x.shape), x, self.entries.start, at, value.contiguous(), self.tiles.tile[0],
              self.order, self._restore, bias, residual, int(relu), y, pixel, STRIP)  # fmt: skip
        return y

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        if dy.dtype != torch.float32 or value.dtype != torch.float32:
            return self._dense.d_input(dy, value, size)
        dy, value, dx = _nhwc(dy), value.contiguous(), _empty(size, dy)
        if self._pointwise:
            self._call("d_input_1x1", self._sizes(size), dy, value, self.tiles.tile[0], len(self.sets.group), self.sets.start,
                  self._rows, self.sets.channel, self.sets.source, self._place, dx, CACHE)  # fmt: skip
            return dx
        pixel, columns = dy.shape[1] + APART, -(-size[3] // self.conv.stride)
        if columns not in self._reads:
            self._reads[columns] = Reads.of(self.phases, self.sets, self.tiles, columns, pixel)
        reads = self._reads[columns]
        self._call("d_input", self._sizes(size), dy, value, self.tiles.tile[0], len(self.sets.group), self.sets.start,
              self.sets.channel, self.sets.source, int(self.sets.neighbours), len(self.phases.phases), reads.phase, reads.at,
              reads.place, reads.source, self.order, self._gather, dx, self.phases.low, self.phases.high, pixel, STRIP)  # fmt: skip
        return dx

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        if dy.dtype != torch.float32 or x.dtype != torch.float32:
            return self._dense.d_values(dy, x)
        dy, x = _nhwc(dy), _nhwc(x)
        gradient = torch.empty(self.value_shape)
        batch = max(32, min(BATCH, 2 * STRIP // x.shape[1]))
        self._call("d_values", self._sizes(x.shape), x, self.entries.start, self.entries.channel, self.entries.tap, dy,
              self.tiles.tile[0], self.order, self._gather, gradient, batch)  # fmt: skip
        return gradient

    def _sizes(self, x: Sequence[int]) -> Tensor:
        """struct Conv of native/cpp/conv.h."""
        key = (*x, torch.get_num_threads())
        if (known := self._known.get(key)) is None:
            k, c, r, s = self.tiles.shape
            *_, out_h, out_w = self.conv.output(tuple(x), self.tiles.shape)
            sides = r, s, self.conv.stride, self.conv.padding
            known = self._known[key] = torch.tensor([x[0], x[2], x[3], c, k, *sides, out_h, out_w, key[-1]])
        return known

    def _call(self, name: str, *arguments: Tensor | int | None) -> None:
        """Run a native function; it is looked up, and told the kinds of its arguments, once."""
        if (function := self._functions.get(name)) is None:
            library = native.library(f"blocks_{name}")
            assert library is not None, "why_not asks first"
            function = self._functions[name] = getattr(library, f"campfire_blocks_{name}")
            function.argtypes = [ctypes.c_int64 if isinstance(a, int) else ctypes.c_void_p for a in arguments]
        function(*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments])


def _moves(index: Tensor | None) -> Tensor | None:
    return None if index is None or len(index) > MOVED else moves(index)


def _nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, memory_format=torch.channels_last)
