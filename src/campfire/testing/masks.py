"""Masks of every kind that a layout may be made for, drawn at random."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Generator, Tensor

from campfire.mask import Mask

Shape = tuple[int, ...]
Draw = Callable[[Shape, float, Generator], Mask]


def masks(shape: Shape, sparsity: float, seed: int = 0) -> Iterator[tuple[str, Mask]]:
    """One mask of each kind for a weight [K, C, R, S], with its name.

    About ``sparsity`` of the weights are zero; where the units are few, rather more. At 1 all masks are empty.

    >>> {name: round(mask.sparsity, 2) for name, mask in masks((32, 8, 3, 3), 0.5)}["kernels"]
    0.5
    """
    for name, draw in KINDS.items():
        yield name, draw(shape, sparsity, torch.Generator().manual_seed(seed))


def _some(count: int, sparsity: float, generator: Generator) -> Tensor:
    """Bool [count], the kept fraction rounded down."""
    kept = math.floor((1 - sparsity) * count + 1e-9)
    return torch.randperm(count, generator=generator) < kept


def _tiles(*largest: int) -> Draw:
    """Boxes of up to this size in each axis, cut down to what divides the shape; 0 for the whole axis."""

    def draw(shape: Shape, sparsity: float, generator: Generator) -> Mask:
        tile = [math.gcd(n, t) for n, t in zip(shape, largest, strict=True)]  # gcd(n, 0) is n
        counts = [n // t for n, t in zip(shape, tile, strict=True)]
        keep = _some(math.prod(counts), sparsity, generator).view(counts)
        for axis, size in enumerate(tile):
            keep = keep.repeat_interleave(size, axis)
        return Mask(keep)

    return draw


def _regrouped(shape: Shape, sparsity: float, generator: Generator) -> Mask:
    """Blocks over permuted outputs, with the permutation as plan."""
    order = torch.randperm(shape[0], generator=generator)
    keep = torch.empty(shape, dtype=torch.bool)
    keep[order] = _tiles(16, 1, 0, 0)(shape, sparsity, generator).keep
    return Mask(keep, {"order": order})


def _rectangle(shape: Shape, sparsity: float, generator: Generator) -> Mask:
    """Whole outputs and whole inputs are gone."""
    side = 1 - math.sqrt(1 - sparsity)
    outputs, inputs = (_some(n, side, generator) for n in shape[:2])
    return Mask((outputs[:, None] & inputs)[:, :, None, None].expand(shape).contiguous())


def _windows(shape: Shape, sparsity: float, generator: Generator) -> Mask:
    """The same number of taps in every kernel."""
    taps = math.prod(shape[2:])
    ranks = torch.rand(math.prod(shape[:2]), taps, generator=generator).argsort(1)
    return Mask((ranks < math.floor((1 - sparsity) * taps + 1e-9)).view(shape))


def _patterns(shape: Shape, sparsity: float, generator: Generator) -> Mask:
    """Half of the removal by four patterns of taps, the rest by whole kernels."""
    side = 1 - math.sqrt(1 - sparsity)
    kernels, taps = math.prod(shape[:2]), math.prod(shape[2:])
    book = torch.stack([_some(taps, min(side, 1 - 1 / taps), generator) for _ in range(4)])
    keep = book[torch.randint(4, (kernels,), generator=generator)]
    dead = 1 - (1 - sparsity) * taps / int(book[0].sum())
    return Mask((keep & _some(kernels, max(dead, 0.0), generator)[:, None]).view(shape))


KINDS: dict[str, Draw] = {
    "single weights": _tiles(1, 1, 1, 1),
    "kernels": _tiles(1, 1, 0, 0),
    "vectors": _tiles(16, 1, 1, 1),
    "blocks": _tiles(8, 4, 0, 0),
    "blocks of a tap": _tiles(4, 2, 1, 1),
    "rows": _tiles(1, 1, 1, 0),
    "filters": _tiles(1, 0, 0, 0),
    "regrouped blocks": _regrouped,
    "outputs and inputs": _rectangle,
    "windows": _windows,
    "patterns": _patterns,
}
