"""Tiles: a weight [K, C, R, S] cut into a grid of equal boxes k x c x r x s, each wholly alive or wholly dead."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Shape = tuple[int, ...]


def read_tile(tile: Sequence[int] | Tensor) -> Shape:
    """A tile from a tuple, a list or an int32 part.

    >>> read_tile(torch.tensor([32, 4, 3, 3], dtype=torch.int32))
    (32, 4, 3, 3)
    """
    return tuple(int(n) for n in (tile.tolist() if isinstance(tile, Tensor) else tile))


def grid(shape: Shape, tile: Shape) -> Shape:
    """How many tiles each axis has: [K/k, C/c, R/r, S/s]."""
    return tuple(n // t for n, t in zip(shape, tile, strict=True))


def why_not_dividing(shape: Shape, tile: Shape) -> list[str]:
    """Reasons why a tile does not divide a shape; [] when it does.

    >>> why_not_dividing((30, 8, 3, 3), (4, 4, 3, 3))
    ['a tile of 4x4x3x3 does not divide 30x8x3x3']
    """
    if len(tile) == 4 and all(t > 0 and n % t == 0 for n, t in zip(shape, tile, strict=True)):
        return []
    return [f"a tile of {_cross(tile)} does not divide {_cross(shape)}"]


def why_not_uniform(keep: Tensor, tile: Shape) -> list[str]:
    """Reasons why a mask is not made of whole tiles; [] when it is."""
    if reasons := why_not_dividing(tuple(keep.shape), tile):
        return reasons
    cut = _cut(keep, tile)
    half = int((cut.any(1) & ~cut.all(1)).sum())
    return [f"{half} of {len(cut)} tiles of {_cross(tile)} are half alive"] if half else []


def largest_tile(keep: Tensor) -> Shape:
    """The tile of most weights in which a mask [K, C, R, S] is uniform: 1-32 outputs x 1-4 inputs x one or all taps.

    A box is uniform exactly when every line in it is, along each axis; so the axes are asked one by one, and the
    largest answers together are both the tile of most weights and the tallest.

    >>> keep = torch.zeros(64, 8, 3, 3, dtype=torch.bool)
    >>> keep[:16, 3] = True
    >>> largest_tile(keep)
    (16, 1, 3, 3)
    """
    taps = keep.flatten(2)
    k = next(n for n in (32, 16, 8, 4, 2, 1) if _uniform(keep, 0, n))
    c = next(n for n in (4, 2, 1) if _uniform(keep, 1, n))
    return (k, c, *keep.shape[2:]) if _uniform(taps, 2, taps.shape[2]) else (k, c, 1, 1)


def living_tiles(keep: Tensor, tile: Shape) -> Tensor:
    """The living tiles of a mask made of whole tiles: int32 [n], rising, row-major in the grid."""
    return _cut(keep, tile)[:, 0].nonzero()[:, 0].to(torch.int32)


def tile_positions(shape: Shape, tile: Shape, unit: Tensor, order: Tensor | None = None) -> Tensor:
    """Flat places in the weight of the weights of some tiles, int64 [n, k c r s], inside a tile in the order r s c k.

    Args:
        unit: flat row-major numbers of tiles in the grid, [n].
        order: row j of the tiled weight is output ``order[j]``; itself where there is none.
    """
    _, channels, height, width = shape
    row, channel, y, x = _coordinates(unit.long(), grid(shape, tile))
    k, c, r, s = (torch.arange(t, device=unit.device) for t in tile)
    output = row[:, None] * tile[0] + k  # [n, k]
    if order is not None:
        output = order.long()[output]
    corner = channel * tile[1] * height * width + y * tile[2] * width + x * tile[3]
    tap = r[:, None] * width + s  # [r, s]
    inside = tap[:, :, None] + c * (height * width)  # [r, s, c]
    places = corner[:, None] + inside.flatten()  # [n, r s c]
    return (places[:, :, None] + output[:, None, :] * (channels * height * width)).flatten(1)


def by_channel(unit: Tensor, counts: Shape) -> Tensor:
    """Living tiles in the order of (channel block, tap, row group), as int32 [n] numbers of entries of ``unit``.

    >>> by_channel(torch.tensor([0, 1, 2]), (2, 2, 1, 1)).tolist()
    [0, 2, 1]
    """
    rest = math.prod(counts[1:])
    return (unit.long() % rest * counts[0] + unit.long() // rest).argsort().to(torch.int32)


def _coordinates(flat: Tensor, counts: Shape) -> list[Tensor]:
    """`torch.unravel_index`, without its copies."""
    axes = []
    for count in reversed(counts):
        axes.append(flat % count)
        flat = flat // count
    return axes[::-1]


def _cut(keep: Tensor, tile: Shape) -> Tensor:
    """[K, C, R, S] -> [tiles, weights of a tile]."""
    sizes = [n for pair in zip(grid(tuple(keep.shape), tile), tile, strict=True) for n in pair]
    return keep.reshape(sizes).permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, math.prod(tile))


def _uniform(keep: Tensor, axis: int, size: int) -> bool:
    """Whether a mask changes along an axis only at multiples of ``size``."""
    if keep.shape[axis] % size:
        return False
    lines = keep.unflatten(axis, (-1, size))
    return bool((lines == lines.narrow(axis + 1, 0, 1)).all())


def _cross(sizes: Shape) -> str:
    return "x".join(map(str, sizes))
