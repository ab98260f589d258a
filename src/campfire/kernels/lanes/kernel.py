"""lanes: any mask, in the format chwn, by native code; one weight multiplies the same pixel of 16 images."""

import torch
from torch import Tensor

from campfire.kernels.base import Conv, Kernel, Prepared
from campfire.kernels.formats import to_format
from campfire.kernels.lanes import passes as lanes_passes
from campfire.kernels.lanes.index import Index
from campfire.kernels.lanes.native import available
from campfire.kernels.lanes.plan import Geometry, most_lines
from campfire.kernels.lanes.ways import Way, way_of
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
        if not reasons and not (available("lanes") and available("lanes_layers")):
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
        self._ways: dict[tuple[int, ...], Way] = {}

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        if not _served(x, value):
            return self._dense.forward(x, value, bias, residual, relu)
        x, residual = to_format(x, "chwn"), None if residual is None else to_format(residual, "chwn")
        bias = None if bias is None else bias.contiguous()
        return self._way(tuple(x.shape)).forward(x, self._listed(value), bias, residual, relu)

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        if not _served(dy, value):
            return self._dense.d_input(dy, value, size)
        return self._way(tuple(size)).d_input(to_format(dy, "chwn"), self._listed(value))

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        if not _served(dy, x):
            return self._dense.d_values(dy, x)
        x, dy = to_format(x, "chwn"), to_format(dy, "chwn")
        listed = self._way(tuple(x.shape)).d_values(x, dy)
        return (listed if self._back is None else listed[self._back]).view(self.value_shape)

    def _listed(self, value: Tensor) -> Tensor:
        flat = value.detach().reshape(-1)
        return flat if self._order is None else flat[self._order]

    def _way(self, size: tuple[int, ...]) -> Way:
        if (found := self._ways.get(size)) is None:
            k, c, r, s = self.shape
            geometry = Geometry(size[0], c, size[2], size[3], k, r, s, self.conv.stride, self.conv.padding)
            found = self._found(geometry)
            while len(self._ways) >= SIZES:
                self._ways.pop(next(iter(self._ways)))
            self._ways[size] = found
        return found

    def _found(self, geometry: Geometry) -> Way:
        return way_of(Index(self._positions, geometry, lanes_passes.width()))


def _served(*tensors: Tensor) -> bool:
    return all(t.dtype == torch.float32 and t.numel() for t in tensors)
