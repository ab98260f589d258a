"""Indices of the batch-lane kernels: the survivors sorted as each pass visits them, with their places in its strips."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from campfire.kernels.lanes.plan import LANES, Geometry, Pass, distances, reads, reads_back, with_tile


@dataclass(frozen=True)
class Side:
    """One direction. Output channel k in a block and class of inputs is group i = (class blocks + block) K + k.

    Survivors ``[start[i], start[i + 1])`` read the lines ``offset`` of a strip; their values begin at ``at[i]``, in the
    order ``which`` of the values (None: their own).
    """

    walk: Pass
    start: Tensor
    at: Tensor
    offset: Tensor
    which: Tensor | None = None


@dataclass(frozen=True)
class Index:
    """Both directions of one layer, each made when it is first asked for.

    Args:
        positions: of the survivors in the flat weight [K, C, R, S], rising.
        lanes: of one register.

    >>> index = Index(torch.tensor([0, 5, 17]), Geometry(16, 2, 8, 8, 1, 3, 3, padding=1))
    >>> index.forward.start.tolist(), index.backward.which.tolist()
    ([0, 3], [0, 1, 2])
    """

    positions: Tensor
    geometry: Geometry
    lanes: int = LANES

    @property
    def values(self) -> int:
        """Survivors."""
        return self.positions.numel()

    @cached_property
    def forward(self) -> Side:
        """For the passes forward and d_values."""
        flat = self.geometry.flat
        walk = self._tiled(reads(flat, flat.stride <= 2 and _whole(self.positions, flat)))
        return _forward(walk, *self._survivors(bool(walk.whole)))

    @cached_property
    def backward(self) -> Side:
        """For the pass d_input."""
        flat = self.geometry.flat
        walk = self._tiled(reads_back(flat, flat.stride == 1 and _whole(self.positions, flat)))
        return _backward(walk, flat, *self._survivors(bool(walk.whole)))

    def _tiled(self, walk: Pass) -> Pass:
        share = self.values / (self.geometry.outputs * self.geometry.inputs)
        return with_tile(walk, share, 28 if self.lanes == LANES else 12)

    def _survivors(self, whole: bool) -> tuple[Tensor, Tensor | None]:
        """Their kernels and taps; no taps where whole kernels survive."""
        size = self.geometry.taps_high * self.geometry.taps_wide
        return (self.positions[::size] // size, None) if whole else (self.positions // size, self.positions % size)


def _whole(positions: Tensor, geometry: Geometry) -> bool:
    if (geometry.taps_high, geometry.taps_wide) != (3, 3) or positions.numel() % 9:
        return False
    return bool((positions.view(-1, 9) == positions[::9, None] // 9 * 9 + torch.arange(9)).all())


def _forward(walk: Pass, kernels: Tensor, tap: Tensor | None) -> Side:
    """The values' own order is by output: a strip's share of an output is a stretch of its row."""
    outputs, inputs = walk.out_channels, walk.in_channels
    starts = (torch.arange(walk.blocks + 1) * walk.block).clamp(max=inputs)
    cut = torch.searchsorted(kernels, (torch.arange(outputs) * inputs + starts[:, None]).flatten()).view(-1, outputs)
    lengths = (cut[1:] - cut[:-1]).flatten()
    at, start = cut[:-1].flatten(), torch.cat([cut.new_zeros(1), lengths.cumsum(0)])
    offset = kernels % inputs % walk.block * walk.lines
    if tap is not None:
        table = [walk.line(r, s) for r in range(walk.taps_high) for s in range(walk.taps_wide)]
        offset += torch.tensor(table)[tap]
    visited = torch.repeat_interleave(at - start[:-1], lengths) + torch.arange(kernels.numel())
    return Side(walk, start.to(torch.int32), at.to(torch.int32), _padded(offset[visited]))


def _backward(walk: Pass, geometry: Geometry, kernels: Tensor, tap: Tensor | None) -> Side:
    """By class of inputs, block of outputs, input and output."""
    k, c = kernels // geometry.inputs, kernels % geometry.inputs
    offset, place = k % walk.block * walk.lines, k // walk.block
    if tap is not None:
        classes, lines = _under_taps(walk, geometry)
        offset, place = offset + lines[tap], place + classes[tap] * walk.blocks
    key = place * walk.out_channels + c
    which = torch.argsort(key, stable=True)
    groups = walk.spread**2 * walk.blocks * walk.out_channels
    start = torch.searchsorted(key[which], torch.arange(groups + 1)).to(torch.int32)
    return Side(walk, start, start[:-1], _padded(offset[which]), which.to(torch.int32))


def _under_taps(walk: Pass, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """The class of inputs that each tap serves, and the line of a strip that it reads."""
    down, right = (distances(taps, geometry) for taps in (geometry.taps_high, geometry.taps_wide))
    pairs = [(r, s) for r in range(geometry.taps_high) for s in range(geometry.taps_wide)]
    stride, padding = geometry.stride, geometry.padding
    classes = [(r - padding) % stride * stride + (s - padding) % stride for r, s in pairs]
    lines = [walk.line(down[r] - walk.top, right[s] - walk.left) for r, s in pairs]
    return torch.tensor(classes), torch.tensor(lines)


def _padded(offset: Tensor) -> Tensor:
    """Three more at the end: the kernels read so far ahead."""
    return torch.cat([offset, offset.new_zeros(3)]).to(torch.uint16)
