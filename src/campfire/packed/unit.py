"""unit: dense tiles (vectors of outputs, kernels, blocks); every weight of a living tile is stored."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.packed.base import Layout, Packed
from campfire.packed.checks import why_not_rising
from campfire.packed.tile import (
    grid,
    largest_tile,
    living_tiles,
    read_tile,
    tile_positions,
    why_not_dividing,
    why_not_uniform,
)


class Unit(Layout):
    """``tile`` int32 [4]: k, c, r, s; ``unit`` int32 [n]: living tiles, rising; ``value`` [n, r s c k].

    Tiles of k outputs x c inputs x r x s taps divide the weight; they are numbered row-major in the grid
    [K/k, C/c, R/r, S/s]. Inside a tile outputs run fastest, then inputs, then taps: a vector of outputs is contiguous.
    ::

                 C = 4, c = 2
                 +-----+-----+
        K = 4,   | 1 2 | . . |      tile   2 2 1 1
        k = 2    | 3 4 | . . |      unit   0 3
                 +-----+-----+
                 | . . | 5 6 |      value  1 3 2 4
                 | . . | 7 8 |             5 7 6 8
                 +-----+-----+

    Option ``tile``: by default the largest of 1-32 outputs x 1-4 inputs x one or all taps in which the mask is uniform.

    >>> from campfire.packed import pack
    >>> weight = torch.tensor([[1.0, 2, 0, 0], [3, 4, 0, 0], [0, 0, 5, 6], [0, 0, 7, 8]])[:, :, None, None]
    >>> parts = pack(weight, Mask(weight != 0), "unit").parts
    >>> parts["tile"].tolist(), parts["unit"].tolist(), parts["value"].int().tolist()
    ([2, 2, 1, 1], [0, 3], [[1, 3, 2, 4], [5, 7, 6, 8]])
    """

    name = "unit"
    parts = {"tile": (1, (torch.int32,)), "unit": (1, (torch.int32,))}
    options = ("tile",)

    def why_not(self, mask: Mask, *, tile: Sequence[int] | Tensor | None = None, **_: Any) -> list[str]:
        if tile is not None:
            return why_not_uniform(mask.keep, read_tile(tile))
        alone = math.prod(largest_tile(mask.keep)) == 1
        return ["no tile of more than one weight is uniform"] if alone else []

    def indices(self, mask: Mask, *, tile: Sequence[int] | Tensor | None = None, **_: Any) -> dict[str, Tensor]:
        box = largest_tile(mask.keep) if tile is None else read_tile(tile)
        unit = living_tiles(mask.keep, box)
        return {"tile": torch.tensor(box, dtype=torch.int32, device=unit.device), "unit": unit}

    def value_shape(self, packed: Packed) -> tuple[int, ...]:
        return packed.parts["unit"].numel(), math.prod(read_tile(packed.parts["tile"]))

    def positions(self, packed: Packed) -> Tensor:
        return tile_positions(packed.shape, read_tile(packed.parts["tile"]), packed.parts["unit"]).flatten()

    def why_bad_indices(self, packed: Packed) -> list[str]:
        tile = read_tile(packed.parts["tile"][:5])  # a hostile part may be long
        if reasons := why_not_dividing(packed.shape, tile):
            return reasons
        return why_not_rising("unit", packed.parts["unit"], math.prod(grid(packed.shape, tile)))
