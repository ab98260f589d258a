"""compact: what is left of a layer without dead input channels and dead outputs, on the dense library."""

import math

import torch
from torch import Tensor

from campfire.kernels.base import Conv, Kernel, Prepared
from campfire.kernels.formats import empty, to_format
from campfire.kernels.library import convolution_backward
from campfire.kernels.row_groups import RowGroup, row_groups
from campfire.packed import LAYOUTS, Packed

LARGEST = 0.9  # of the dense arithmetic: with more left, gathering channels costs more than it saves


class Compact(Kernel):
    """Smaller dense convolutions: one, or a few over groups of outputs that read nearly the same channels.

    Any layout, floating dtype, device, stride, padding and dilation. Bounds: the library's speed on what is left, after
    every group has gathered its channels (and, in the gradient of the input, before it adds them up).
    """

    name = "compact"
    layouts = tuple(LAYOUTS)

    def why_not(self, packed: Packed, conv: Conv, dtype: torch.dtype, device: torch.device) -> list[str]:
        if reasons := super().why_not(packed, conv, dtype, device):
            return reasons
        if device.type == "meta":
            return ["there are no indices to look at on the meta device"]
        if conv.groups != 1:
            return [f"groups is 1; got {conv.groups}"]
        share = self.work(packed, conv)
        if share >= LARGEST:
            return [f"dead channels and outputs are few: {share:.0%} of the dense arithmetic would be left"]
        return []

    def work(self, packed: Packed, conv: Conv) -> float:
        return sum(group.work for group in _groups(packed)) / math.prod(packed.shape[:2])

    def prepare(self, packed: Packed, conv: Conv) -> "CompactPasses":
        return CompactPasses(packed, conv)


class CompactPasses(Prepared):
    """The groups of one layer, and where its values lie in their weights, one behind the other."""

    def __init__(self, packed: Packed, conv: Conv):
        self.shape, self.value_shape, self.conv = packed.shape, LAYOUTS[packed.layout].value_shape(packed), conv
        self.groups, (outputs, channels) = _groups(packed), packed.shape[:2]
        taps = math.prod(packed.shape[2:])
        self.sizes = [group.work * taps for group in self.groups]
        position = LAYOUTS[packed.layout].positions(packed)
        row, channel, tap = position // (channels * taps), position // taps % channels, position % taps
        self.places = torch.empty_like(position)
        before = 0
        dead = torch.ones(outputs, dtype=torch.bool, device=position.device)
        for group, size in zip(self.groups, self.sizes, strict=True):
            mine = torch.isin(row, group.rows)
            r, c = torch.searchsorted(group.rows, row[mine]), torch.searchsorted(group.channels, channel[mine])
            self.places[mine] = before + (r * len(group.channels) + c) * taps + tap[mine]
            dead[group.rows] = False
            before += size
        self.dead = dead.nonzero()[:, 0]  # numbers, not a mask: to count a mask, a GPU is waited for
        self._alone = len(self.groups) == 1 and not len(self.dead)

    def forward(
        self, x: Tensor, value: Tensor, bias: Tensor | None, residual: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        x, c = to_format(x, "nhwc"), self.conv
        y = None if self._alone else empty(c.output(tuple(x.shape), self.shape), x, "nhwc")
        if y is not None and len(self.dead):
            rest = y.new_zeros(len(self.dead)) if bias is None else bias[self.dead].to(y.dtype)
            y.index_copy_(1, self.dead, rest.view(1, -1, 1, 1).expand(len(y), -1, *y.shape[2:]))
        for group, weight in zip(self.groups, self._weights(value), strict=True):
            ours = None if bias is None else bias[group.rows]
            part = torch.nn.functional.conv2d(_take(x, group.channels), weight, ours, c.stride, c.padding, c.dilation)
            y = part if y is None else _put(y, group.rows, part)
        assert y is not None
        y = y if residual is None else y + residual
        return y.relu() if relu else y

    def d_input(self, dy: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
        dy = to_format(dy, "nhwc")
        dx = empty(size, dy, "nhwc")
        if len(self.groups) != 1 or len(self.groups[0].channels) != size[1]:
            dx.zero_()
        for group, weight in zip(self.groups, self._weights(value), strict=True):
            like = empty((size[0], len(group.channels), *size[2:]), dy, "nhwc")  # its size is read, no more
            part = convolution_backward(_take(dy, group.rows), like, weight, self.conv, [True, False, False])[0]
            dx = _add(dx, group.channels, part) if len(self.groups) > 1 else _put(dx, group.channels, part)
        return dx

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        dy, x = to_format(dy, "nhwc"), to_format(x, "nhwc")
        parts = [dy.new_empty(0)]
        for group in self.groups:
            weight = dy.new_empty(len(group.rows), len(group.channels), *self.shape[2:])
            taken = _take(dy, group.rows), _take(x, group.channels)
            parts.append(convolution_backward(*taken, weight, self.conv, [False, True, False])[1].reshape(-1))
        return torch.cat(parts).index_select(0, self.places).view(self.value_shape)

    def _weights(self, value: Tensor) -> list[Tensor]:
        """The dense weight [n, m, R, S] of every group."""
        flat = value.new_zeros(sum(self.sizes)).scatter_(0, self.places, value.detach().reshape(-1))
        if not self.groups:
            return []
        shapes = [(len(group.rows), len(group.channels), *self.shape[2:]) for group in self.groups]
        return [part.view(shape) for part, shape in zip(flat.split(self.sizes), shapes, strict=True)]


def _groups(packed: Packed) -> list[RowGroup]:
    """The row groups of a packed weight; asked for by all of dispatch, and found once for each Packed."""
    kept = vars(packed)
    if "row_groups" not in kept:
        outputs, channels, *taps = packed.shape
        kernels = LAYOUTS[packed.layout].positions(packed) // math.prod(taps)
        reads = torch.zeros(outputs * channels, dtype=torch.bool, device=kernels.device)
        reads[kernels] = True
        kept["row_groups"] = row_groups(reads.view(outputs, channels))
    return kept["row_groups"]


def _pixels(x: Tensor) -> Tensor:
    """[N H W, C] in the memory of [N, C, H, W] in NHWC."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _take(x: Tensor, channels: Tensor) -> Tensor:
    """These channels of x, in NHWC."""
    if len(channels) == x.shape[1]:
        return x
    n, _, h, w = x.shape
    flat = _pixels(x)
    return flat.gather(1, channels.expand(len(flat), -1)).view(n, h, w, len(channels)).permute(0, 3, 1, 2)


def _put(y: Tensor, channels: Tensor, part: Tensor) -> Tensor:
    """y with these channels replaced."""
    if len(channels) == y.shape[1]:
        return part
    part = _pixels(to_format(part, "nhwc"))
    _pixels(y).scatter_(1, channels.expand(len(part), -1), part)
    return y


def _add(y: Tensor, channels: Tensor, part: Tensor) -> Tensor:
    _pixels(y).index_add_(1, channels, _pixels(to_format(part, "nhwc")))
    return y
