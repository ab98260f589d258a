"""blocks-bf16: blocks in bfloat16, in NHWC, by dot products of pairs (AVX512-BF16); sums in float32."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from campfire import native
from campfire.kernels.base import Conv, Kernel, Prepared
from campfire.kernels.blocks.bf16_index import Columns, Pairs, places_of
from campfire.kernels.blocks.index import Phase, Phases, Sets, Tiles
from campfire.kernels.reference import Dense
from campfire.packed import LAYOUTS, Packed
from campfire.packed.tile import read_tile

STRIP = 65536  # pairs of padded input that a thread works on at a time: a quarter of a second cache
APART = 16  # pairs between the pixels of a copy: powers of two would share a few sets of the first cache
CACHE = 131072  # floats that the strip of d_input's narrow blocks may take: half a second cache
BATCH = 65536  # pairs of pixels x channels that the gradient of the values interleaves at a time
SHARED = {"bf16_pairs": "bf16_conv", "bf16_turned": "bf16_conv"}  # functions, and the library they are in


class BlocksBf16(Kernel):
    """Vectors of 16 or 32 outputs share every pair of inputs; bfloat16 on the CPU, sums in float32.

    Bounds: 28 dot products for 16 loads, so the forward pass runs at the speed of dense bfloat16. So does d_input where 16 or
    32 inputs side by side live together; where fewer do, pixels are its lanes.
    """

    name = "blocks-bf16"
    layouts = ("unit", "grouped")
    serves, least = "bfloat16 on a CPU with AVX512-BF16", (16, 2)

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        if reasons := super().why_not(packed, conv, dtype, device):
            return reasons
        tile, shape, reasons = read_tile(packed.parts["tile"]), packed.shape, []
        if tile[0] % 16 or tile[1] % 2:
            reasons.append(f"its vectors are 16 outputs x 2 inputs; the tile has {tile[0]} x {tile[1]}")
        if tile[2:] not in (shape[2:], (1, 1)):
            reasons.append(f"a tile holds one tap or all; got {tile[2]}x{tile[3]} of {shape[2]}x{shape[3]}")
        if conv.dilation != 1 or conv.groups != 1:
            reasons.append(f"dilation and groups are 1; got {conv.dilation} and {conv.groups}")
        if dtype != torch.bfloat16 or device.type != "cpu":
            reasons.append(f"it computes in bfloat16 on a CPU; got {dtype} on {device.type}")
        return reasons or self.why_no_code()

    def why_no_code(self) -> list[str]:
        """Reasons why this machine cannot run it; [] when it can."""
        library = native.library("blocks_bf16_conv")
        if library is None:
            return ["native code is off, or no compiler was found"]
        return [] if library.campfire_blocks_bf16_built() else ["it needs AVX512-BF16, of the CPU and of the compiler"]

    def prepare(self, packed: Packed, conv: Conv) -> "Bf16Passes":
        return Bf16Passes(packed, conv)


class Bf16Passes(Prepared):
    """The indices of one layer; offsets are made once for each size of its input."""

    def __init__(self, packed: Packed, conv: Conv):
        self.conv, self.tiles = conv, Tiles.of(packed)
        self.rows = self.tiles.tile[0]  # outputs of a row group
        self.pairs, self.columns, self.sets = Pairs.of(self.tiles), Columns.of(self.tiles), Sets.of(self.tiles)
        self.phases = Phases.of(conv, self.tiles.shape[2:])  # pyright: ignore[reportArgumentType]
        self.value_shape = LAYOUTS[packed.layout].value_shape(packed)
        order = packed.parts.get("order")
        in_order = order is None or bool((order == torch.arange(len(order))).all())
        self.order = None if in_order or order is None else order.contiguous()
        self.back = None if self.order is None else self.order.argsort().to(torch.int32)
        self._dense = Dense(packed, conv)
        self._flat = self.tiles.shape[2:] == (1, 1) and conv.stride == 1 and conv.padding == 0
        self._offsets: dict[tuple[int, ...], Reads] = {}
        self._reads: dict[tuple[int, ...], Reads] = {}

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        if x.dtype != torch.bfloat16 or value.dtype != torch.bfloat16:
            return self._dense.forward(x, value, bias, residual, relu)
        (stride, padding), shape = (self.conv.stride, self.conv.padding), self.tiles.shape
        x, y, pairs = nhwc(x), _empty(self.conv.output(tuple(x.shape), shape), x), x.shape[1] // 2
        padded, side, phases = x.shape[3] + 2 * padding, self.beside(len(x), y.shape[3]), 1
        pixel = pairs + APART if side > 1 or padding or (self._flat and pairs % 1024 == 0) else 0
        if side > 1:  # columns that the stride skips lie apart
            phases = min(stride, shape[3])
            padded = phases * -(-padded // stride)
        if (key := (padded, pixel, side)) not in self._offsets:
            places = places_of((shape[2], shape[3]), padded, side * (pixel or pairs), phases)
            self._offsets[key] = self.reads(self.pairs.start, self.pairs.offsets(places), self.pairs.source, 16, side)
        reads, weight = self._offsets[key], torch.empty(value.numel(), dtype=value.dtype)
        k, apart = self.rows, self.tiles.tile[0]
        call("bf16_pairs", weight, value.contiguous(), reads.source, len(reads.source), k, apart, _threads())
        if bias is not None:
            bias = (bias if self.order is None else bias[self.order]).float()
        residual = None if residual is None else nhwc(residual.to(x.dtype))
        sizes = _sizes(x, y, tuple(y.shape[2:]), (1, 0, 0), (stride, padding, shape[2]))
        self.convolve(reads, sizes, x, weight, k, None, self.back, bias, residual, int(relu), y, padded, pixel, STRIP)
        return y

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        if dy.dtype != torch.bfloat16 or value.dtype != torch.bfloat16:
            return self._dense.d_input(dy, value, size)
        dy, value, dx, stride = nhwc(dy), value.contiguous(), _empty(size, dy), self.conv.stride
        low, high = self.phases.low, self.phases.high
        for number, phase in enumerate(self.phases.phases):
            rows, wide = (-(-(n - p) // stride) for n, p in ((size[2], phase.h), (size[3], phase.w)))
            sizes = _sizes(dy, dx, (rows, wide), (stride, phase.h, phase.w), (1, -low, high - low + 1))
            if self.columns is None:
                self._d_input_narrow(dy, value, dx, phase, sizes, wide + high - low)
            else:
                self._d_input_wide(dy, value, dx, number, sizes, (rows, wide))
        return dx

    def _d_input_wide(
        self, dy: Tensor, value: Tensor, dx: Tensor, number: int, sizes: Tensor, part: tuple[int, int]
    ) -> None:
        """One phase, as a convolution of dy."""
        assert self.columns is not None
        pairs, reach = dy.shape[1] // 2, self.phases.high - self.phases.low
        inside = part[0] <= dy.shape[2] and part[1] <= dy.shape[3]  # dy is read where it lies
        side = self.beside(len(dy), part[1])
        direct = side == 1 and reach == 0 and self.order is None and (pairs % 1024 != 0 if self._flat else inside)
        pixel = 0 if direct else pairs + APART
        padded = dy.shape[3] if direct else part[1] + reach
        if (key := (number, padded, pixel, side)) not in self._reads:
            self._reads[key] = self._read(number, padded, pixel or pairs, side)
        reads, k, lanes = self._reads[key], self.rows, self.columns.lanes
        weight = torch.empty(reads.source.numel() * k, dtype=value.dtype)
        call("bf16_turned", weight, value, reads.source, len(reads.source), lanes, k, _threads())
        self.convolve(reads, sizes, dy, weight, lanes, self.order, None, None, None, 0, dx, padded, pixel, STRIP)

    def _d_input_narrow(self, dy: Tensor, value: Tensor, dx: Tensor, phase: Phase, sizes: Tensor, padded: int) -> None:
        """One phase, pixels as lanes."""
        sets, (k, c, *_), low = self.sets, self.tiles.tile, self.phases.low
        places = {tap: (down - low) * padded + right - low for tap, down, right in phase.taps}
        row, place = sets.group * (k // 2), torch.zeros_like(sets.group)
        taps, sources = places, [tap * c * k for tap in places]
        if not self.tiles.whole:  # sets of one tap; those of other phases read nothing
            place, taps, sources = torch.tensor([places.get(int(tap), -1) for tap in sets.tap]), {0: 0}, [0]
            row = torch.where(place < 0, -1, row)
        call("bf16_d_input", sizes, dy, value, k, len(row), sets.start, row.int(), place.int(), sets.channel, sets.source,
             len(taps), _ints(list(taps.values())), _ints(sources), self.order, dx, padded, CACHE)  # fmt: skip

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        if dy.dtype != torch.bfloat16 or x.dtype != torch.bfloat16 or x.shape[1] % 16:
            return self._dense.d_values(dy, x)
        dy, x, pairs, many = nhwc(dy), nhwc(x), self.pairs, 1 if self.tiles.tile[1] % 4 else 2
        gradient = torch.empty(self.value_shape, dtype=x.dtype)
        batch = max(32, BATCH // sum(self.tiles.shape[:2]))
        call("bf16_d_values", self.sizes(x, dy), x, pairs.start // many, pairs.channel[::many].contiguous(),
             pairs.tap[::many].contiguous(), 2 * many, dy, self.tiles.tile[0], self.order, gradient, batch)  # fmt: skip
        return gradient

    def sizes(self, x: Tensor, dy: Tensor) -> Tensor:
        """struct Conv of native/cpp/conv.h."""
        (k, c, r, s), conv = self.tiles.shape, self.conv
        sides = r, s, conv.stride, conv.padding, *dy.shape[2:]
        return torch.tensor([x.shape[0], *x.shape[2:], c, k, *sides, _threads()])

    def beside(self, images: int, columns: int) -> int:
        """How many images lie side by side in a copy whose rows have so many ``columns``."""
        return 1

    def reads(self, start: Tensor, at: Tensor, source: Tensor, depth: int, side: int) -> "Reads":
        """Of lists of pairs; ``depth`` of them, side by side, are a block."""
        return Reads(start, at, source)

    def convolve(self, reads: "Reads", sizes: Tensor, x: Tensor, weight: Tensor, *rest: Tensor | int | None) -> None:
        """Run it natively."""
        call("bf16_conv", sizes, x, reads.start, reads.at, weight, *rest)

    def _read(self, number: int, row: int, pixel: int, side: int) -> "Reads":
        """What the pixels of a phase read of dy, in rows of ``row`` pixels of ``side`` images."""
        assert self.columns is not None
        columns, low, half = self.columns, self.phases.low, self.rows // 2
        places = torch.full((self.tiles.shape[2] * self.tiles.shape[3],), -1)
        for tap, down, right in self.phases.phases[number].taps:
            places[tap] = ((down - low) * row + right - low) * pixel * side
        reads = (places[columns.tap] >= 0).nonzero()[:, 0]
        start = columns.start(reads, self.tiles.shape[1] // columns.lanes, half)
        return self.reads(start, columns.offsets(reads, places, half), columns.source[reads].contiguous(), half, side)


@dataclass(frozen=True)
class Reads:
    """What each group of lanes reads: first entry, offset of each from the pixel, and where its weights lie."""

    start: Tensor  # int32 [groups + 1]
    at: Tensor  # int32 [entries]
    source: Tensor  # int32
    depth: int = 1  # pairs in an entry
    side: int = 1  # images that lie side by side


def _sizes(
    x: Tensor, y: Tensor, part: tuple[int, ...], lattice: tuple[int, int, int], reach: tuple[int, int, int]
) -> Tensor:
    """struct Sizes of native/cpp/blocks_bf16.h."""
    n, c, high, wide = x.shape
    return torch.tensor([n, high, wide, c, *y.shape[1:], *part, *lattice, *reach, _threads()])


def call(name: str, *arguments: Tensor | int | None) -> None:
    """Run ``campfire_blocks_NAME`` of the library that has it."""
    library = native.library(f"blocks_{SHARED.get(name, name)}")
    assert library is not None, "why_not asks first"
    getattr(library, f"campfire_blocks_{name}")(*map(_as_c, arguments))


def _as_c(argument: Tensor | int | None) -> "ctypes.c_void_p | ctypes.c_int64":
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    return ctypes.c_void_p(None if argument is None else argument.data_ptr())


def _threads() -> int:
    return torch.get_num_threads()


def nhwc(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, memory_format=torch.channels_last)


def _ints(values: list[int]) -> Tensor:
    return torch.tensor(values or [0], dtype=torch.int32)
