"""grouped: tiles over regrouped outputs, readable in both directions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.packed.base import Layout, Packed
from campfire.packed.checks import why_not_permutation
from campfire.packed.tile import by_channel, grid, read_tile, tile_positions
from campfire.packed.unit import Unit

ROWS = Unit()


class Grouped(Layout):
    """``order`` int32 [K]: row j is output order[j]; ``tile``, ``unit``, ``value`` of these rows as in unit; ``back``.

    Outputs that keep the same inputs are brought together, so that tall tiles fit masks whose outputs lie scattered.
    ``back`` int32 [n] numbers the entries of ``unit`` by (channel block, tap, row group): the order in which the
    gradient of the input reads them.
    ::

        output                 row = output
          0   [1 . 2 .]         0 = 0  [1 . 2 .]     order  0 2 1 3
          1   [. 3 . 4]         1 = 2  [5 . 6 .]     tile   2 1 1 1     value  1 5
          2   [5 . 6 .]         2 = 1  [. 3 . 4]     unit   0 2 5 7            2 6
          3   [. 7 . 8]         3 = 3  [. 7 . 8]     back   0 2 1 3            3 7
                                                                               4 8

    The order is ``mask.plan["order"]`` where the structure made one, else the option ``order``, else as they come.
    Option ``tile``: as in unit.

    >>> from campfire.packed import pack
    >>> weight = torch.tensor([[1.0, 0, 2, 0], [0, 3, 0, 4], [5, 0, 6, 0], [0, 7, 0, 8]])[:, :, None, None]
    >>> mask = Mask(weight != 0, {"order": torch.tensor([0, 2, 1, 3])})
    >>> parts = pack(weight, mask, "grouped").parts
    >>> parts["tile"].tolist(), parts["unit"].tolist(), parts["back"].tolist(), parts["value"].int().tolist()
    ([2, 1, 1, 1], [0, 2, 5, 7], [0, 2, 1, 3], [[1, 5], [2, 6], [3, 7], [4, 8]])
    """

    name = "grouped"
    parts = dict.fromkeys(("order", "tile", "unit", "back"), (1, (torch.int32,)))
    options = ("order", "tile")

    def why_not(
        self, mask: Mask, *, order: Tensor | None = None, tile: Sequence[int] | Tensor | None = None, **_: Any
    ) -> list[str]:
        rows = _order(mask, order)
        reasons = why_not_permutation("order", rows, len(mask.keep))
        return reasons or ROWS.why_not(Mask(mask.keep[rows]), tile=tile)

    def indices(
        self, mask: Mask, *, order: Tensor | None = None, tile: Sequence[int] | Tensor | None = None, **_: Any
    ) -> dict[str, Tensor]:
        rows = _order(mask, order)
        parts = ROWS.indices(Mask(mask.keep[rows]), tile=tile)
        counts = grid(tuple(mask.keep.shape), read_tile(parts["tile"]))
        return {"order": rows.to(torch.int32), **parts, "back": by_channel(parts["unit"], counts)}

    def value_shape(self, packed: Packed) -> tuple[int, ...]:
        return ROWS.value_shape(packed)

    def positions(self, packed: Packed) -> Tensor:
        order, tile, unit = (packed.parts[part] for part in ("order", "tile", "unit"))
        return tile_positions(packed.shape, read_tile(tile), unit, order).flatten()

    def why_bad_indices(self, packed: Packed) -> list[str]:
        parts = packed.parts
        reasons = why_not_permutation("order", parts["order"], packed.shape[0])
        if reasons := reasons or ROWS.why_bad_indices(packed):
            return reasons
        counts = grid(packed.shape, read_tile(parts["tile"]))
        if not torch.equal(parts["back"], by_channel(parts["unit"], counts)):
            return ["back does not number the units by (channel block, tap, row group)"]
        return []


def _order(mask: Mask, order: Tensor | None) -> Tensor:
    """The structure's own order, else the one asked for, else none; int64 [K]."""
    order = mask.plan.get("order", order)
    device = mask.keep.device
    return (
        torch.arange(len(mask.keep), device=device) if order is None else torch.as_tensor(order, device=device).long()
    )
