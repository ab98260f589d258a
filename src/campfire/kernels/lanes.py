"""lanes: any mask, in the format chwn, by native code; one weight multiplies the same pixel of 16 images."""

import torch
from torch import Tensor

from campfire import native
from campfire.kernels import lanes_passes
from campfire.kernels.base import Conv, Kernel, Prepared
from campfire.kernels.formats import to_format
from campfire.kernels.lanes_index import Index, build
from campfire.kernels.lanes_plan import Geometry, most_lines
from campfire.kernels.reference import Dense
from campfire.packed import LAYOUTS, Packed

SIZES = 8  # input sizes whose indices a layer keeps
FARTHEST = 2**16  # lines of a strip that an index can name


class Lanes(Kernel):
    """A weight is broadcast to the vectors it multiplies, wherever it stands; float32 on the CPU, other dtypes run dense.

    Bounds: every product reads its input from the first cache, two a cycle; whole 3x3 kernels read a vector once for nine
    products. A 1x1 layer has few products for each sum that comes and goes.
    """

    name = "lanes"
    format = "chwn"
    layouts = tuple(LAYOUTS)

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        if reasons := super().why_not(packed, conv, dtype, device):
            return reasons
        reasons = []
        if conv.dilation != 1 or conv.groups != 1:
            reasons.append(f"dilation and groups are 1; got {conv.dilation} and {conv.groups}")
        if most_lines(packed.shape[2], packed.shape[3], conv.stride) >= FARTHEST:
            reasons.append(f"a kernel and its stride span too much; got {packed.shape[2]}x{packed.shape[3]}")
        if dtype != torch.float32 or device.type != "cpu":
            reasons.append(f"it computes in float32 on a CPU; got {dtype} on {device.type}")
        if not reasons and native.library("lanes") is None:
            reasons.append("native code is off, or no compiler was found")
        return reasons

    def prepare(self, packed: Packed, conv: Conv) -> "LanePasses":
        return LanePasses(packed, conv)


class LanePasses(Prepared):
    """The indices of one layer, made once for each size of its input."""

    def __init__(self, packed: Packed, conv: Conv):
        self.shape, self.conv, self.value_shape = packed.shape, conv, LAYOUTS[packed.layout].value_shape(packed)
        positions = LAYOUTS[packed.layout].positions(packed)
        rising = bool((positions[1:] > positions[:-1]).all())
        self._order = None if rising else torch.argsort(positions)  # the values as the index lists them
        self._back = None if self._order is None else torch.argsort(self._order)
        self._positions = positions if self._order is None else positions[self._order]
        self._dense = Dense(packed, conv)
        self._indices: dict[tuple[int, ...], Index] = {}

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        if not _served(x, value):
            return self._dense.forward(x, value, bias, residual, relu)
        x, residual = to_format(x, "chwn"), None if residual is None else to_format(residual, "chwn")
        bias = None if bias is None else bias.contiguous()
        return lanes_passes.forward(x, self._index(tuple(x.shape)), self._listed(value), bias, residual, relu)

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        if not _served(dy, value):
            return self._dense.d_input(dy, value, size)
        return lanes_passes.d_input(to_format(dy, "chwn"), self._index(tuple(size)), self._listed(value))

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        if not _served(dy, x):
            return self._dense.d_values(dy, x)
        x, dy = to_format(x, "chwn"), to_format(dy, "chwn")
        listed = lanes_passes.d_values(x, dy, self._index(tuple(x.shape)))
        return (listed if self._back is None else listed[self._back]).view(self.value_shape)

    def _listed(self, value: Tensor) -> Tensor:
        flat = value.detach().reshape(-1)
        return flat if self._order is None else flat[self._order]

    def _index(self, size: tuple[int, ...]) -> Index:
        if (found := self._indices.get(size)) is None:
            k, c, r, s = self.shape
            geometry = Geometry(size[0], c, size[2], size[3], k, r, s, self.conv.stride, self.conv.padding)
            found = build(self._positions, geometry, lanes_passes.width())
            while len(self._indices) >= SIZES:
                self._indices.pop(next(iter(self._indices)))
            self._indices[size] = found
        return found


def _served(*tensors: Tensor) -> bool:
    return all(t.dtype == torch.float32 and t.numel() for t in tensors)
