"""Output-memory references, counted on a real mask and real activations.

A product of a living weight and a non-zero activation is added to an output in memory. Products of the same output that
follow each other may be added up first, so that the memory is referred to once:

    a kernel   what it sees   products   row_merge   kernel_merge
     x . x         1 1 1          2          1
     . x .         0 1 1          1          1             1
     . . .         1 0 1          0          0
                                 = 3        = 2           = 1

What lives among the n taps of a row or kernel, and what is not zero under them, are both numbers of n bits. So
activations are counted once by such numbers, and a mask then asks how many share a bit with its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from campfire.costs.macs import is_linear, packed_of

TABLE = 12  # most taps that are counted by numbers: 2^12 counts a channel
CHUNK = 64  # outputs at once


@dataclass(frozen=True)
class References:
    """References to the output memory, by three counters.

    ``products``: every product is one. ``row_merge``: the products of a kernel row for one output are one.
    ``kernel_merge``: those of a whole kernel are one.
    """

    products: float
    row_merge: float
    kernel_merge: float

    def __add__(self, other: "References") -> "References":
        return References(*(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    def __truediv__(self, by: float) -> "References":
        return References(*(n / by for n in self.counts))

    @property
    def counts(self) -> tuple[float, float, float]:
        return self.products, self.row_merge, self.kernel_merge


@dataclass(frozen=True)
class Geometry:
    """How a convolution looks at its input: sizes along rows and columns, and pixels added around (as `F.pad` has them)."""

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, ...] = (0, 0, 0, 0)
    groups: int = 1
    mode: str = "constant"
    linear: bool = False  # the channels are the last axis, whatever stands before it

    @classmethod
    def of(cls, module: nn.Module) -> "Geometry":
        """That of a 2-D convolution, sparse or not; a linear layer sees one pixel."""
        if is_linear(module):
            return cls(linear=True)
        if isinstance(module, nn.Conv2d):
            mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
            pads = tuple(module._reversed_padding_repeated_twice)
            return cls(
                _pair(module.kernel_size), _pair(module.stride), _pair(module.dilation), pads, module.groups, mode
            )
        packed, conv = packed_of(module), getattr(module, "conv", None)
        if packed is None or conv is None:
            return cls()
        stride, dilation = (conv.stride, conv.stride), (conv.dilation, conv.dilation)
        return cls(_pair(packed.shape[2:]), stride, dilation, (conv.padding,) * 4, conv.groups)

    def images(self, x: Tensor) -> Tensor:
        """A layer's input as [N, C, H, W]: it is that, or [C, H, W] of one image, or [..., C] of a linear layer."""
        return x.reshape(-1, x.shape[-1], 1, 1) if self.linear else x[None] if x.dim() == 3 else x

    def makes(self, output: Tensor, x: Tensor, shape: Sequence[int]) -> bool:
        """Whether a weight [K, C / groups, R, S] makes an output of this size of the input ``x``.

        A layer whose class pads or cuts its input by itself does something else than its options tell.
        """
        if self.linear:
            return x.shape[-1] == shape[1] and output.shape == (*x.shape[:-1], shape[0])
        if x.dim() not in (3, 4) or x.shape[-3] != shape[1] * self.groups:
            return False
        around = (self.pads[2] + self.pads[3], self.pads[0] + self.pads[1])
        sides = zip(x.shape[-2:], around, self.kernel, self.stride, self.dilation, strict=True)
        positions = [(n + pad - d * (k - 1) - 1) // s + 1 for n, pad, k, s, d in sides]
        return output.shape == (*x.shape[:-3], shape[0], *positions)


@dataclass(frozen=True)
class Seen:
    """The non-zero activations of a layer as its taps see them.

    ``taps`` [R * S] are bool [N, C, H', W']: whether what a tap multiplies for an output is not zero.
    """

    taps: Sequence[Tensor]
    kernel: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, x: Tensor, geometry: Geometry) -> "Seen":
        """``x`` is the layer's input, [N, C, H, W] ([C, H, W] of one image), or [..., C] of a linear layer."""
        active = F.pad((geometry.images(x) != 0).float(), geometry.pads, geometry.mode).bool()
        sides = zip(active.shape[2:], geometry.kernel, geometry.stride, geometry.dilation, strict=True)
        rows, columns = ([slice(i * d, n - (k - 1 - i) * d, s) for i in range(k)] for n, k, s, d in sides)
        return cls([active[:, :, r, c] for r in rows for c in columns], geometry.kernel, geometry.groups)

    def references(self, keep: Tensor) -> References:
        """Those of a mask [K, C / groups, R, S], over all images."""
        rows, columns = self.kernel
        products = int(self.work(keep)[0].sum())
        if rows == columns == 1:
            return References(products, products, products)
        living = keep.reshape(self.groups, -1, *keep.shape[1:])  # [groups, K / groups, C / groups, R, S]
        by_row = sum(row.met(living[:, :, :, r]) for r, row in enumerate(self._rows))
        whole = by_row if rows == 1 else self._whole.met(living.flatten(3))
        return References(products, products if columns == 1 else by_row, whole)

    def work(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Products of a mask over all images, by output [K] and by input [C], int64."""
        seen = torch.stack([tap.sum((0, 2, 3)) for tap in self.taps], -1)  # [C, R * S]
        living = keep.reshape(self.groups, -1, keep.shape[1], len(self.taps))
        parts = living.split(CHUNK, dim=1)  # of linear layers with 100 million weights
        seen = seen.view(self.groups, 1, keep.shape[1], -1)
        sums = [(work.sum(-1), work.sum(1)) for work in ((part * seen).sum(-1) for part in parts)]
        return torch.cat([x for x, _ in sums], 1).flatten(), torch.stack([x for _, x in sums]).sum(0).flatten()

    @cached_property
    def _rows(self) -> list["Windows"]:
        rows, columns = self.kernel
        return [windows(self.taps[r * columns : (r + 1) * columns], self.groups) for r in range(rows)]

    @cached_property
    def _whole(self) -> "Windows":
        return windows(self.taps, self.groups)


class Windows:
    """n taps of every input channel: at how many outputs one of the living ones among them sees something."""

    def met(self, living: Tensor) -> int:
        """Outputs where they do, over all kernels of ``living``, bool [groups, K / groups, C / groups, n]."""
        raise NotImplementedError


class Counted(Windows):
    """For few taps: counts by the number that the non-zero activations spell."""

    def __init__(self, taps: Sequence[Tensor], groups: int):
        n, channels = len(taps), taps[0].shape[1]
        spelt = sum(tap.long() << i for i, tap in enumerate(taps))
        assert isinstance(spelt, Tensor)
        places = spelt + (torch.arange(channels, device=spelt.device) << n).view(-1, 1, 1)
        within = torch.bincount(places.reshape(-1), minlength=channels << n).view(channels, 1 << n)
        for i in range(n):  # within[u]: windows whose non-zero activations are all among u
            halves = within.view(channels, -1, 2, 1 << i)
            halves[:, :, 1] += halves[:, :, 0]
        self.table = (within[:, -1:] - within.flip(1)).view(groups, -1, 1 << n)  # flip: ~m, the taps that do not live

    def met(self, living: Tensor) -> int:
        bits = 1 << torch.arange(living.shape[-1], device=living.device)
        spelt = (living * bits).sum(-1)  # [groups, K / groups, C / groups]
        return int(self.table.gather(2, spelt.transpose(1, 2)).sum())


class Multiplied(Windows):
    """For many taps: by multiplying, input channel by input channel."""

    def __init__(self, taps: Sequence[Tensor], groups: int):
        active = torch.stack([tap.transpose(0, 1).flatten(1) for tap in taps], 1)  # [C, n, outputs]
        self.active = active.view(groups, -1, *active.shape[1:])

    def met(self, living: Tensor) -> int:
        groups, _, channels, _ = living.shape
        pairs = ((living[g, :, c].float(), self.active[g, c].float()) for g in range(groups) for c in range(channels))
        return sum(int((kernels @ active).count_nonzero()) for kernels, active in pairs)


def windows(taps: Sequence[Tensor], groups: int) -> Windows:
    """The faster way for so many taps."""
    return (Counted if len(taps) <= TABLE else Multiplied)(taps, groups)


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    return sizes[0], sizes[1]
