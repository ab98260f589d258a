"""Register tiles of generated code: which one suits a layer, from a model of the cycles or from what was timed."""

import itertools
from functools import cache

from campfire.kernels.lanes_plan import LANES, Pass

LINES = 1100  # vectors of a strip: each is read for several products, so that some may come from the second cache
HIGHEST, WIDEST = 8, 14


def with_tile(walk: Pass, taps: float, most: int, kernels: float, lanes: int) -> Pass:
    """The pass with the cheapest tile.

    Args:
        taps: of a kernel, on average.
        most: taps of a pattern.
        kernels: alive, per output and input channel.
        lanes: of one register.
    """
    fields = tuple(getattr(walk, name) for name, *_ in Pass._fields_)
    limit = most_sums(most, lanes)
    rows, cols = _tile(fields, max(1.0, round(taps, 1)), max(0.02, round(kernels, 2)), limit)
    return tiled(walk, rows, cols)


def tiled(walk: Pass, rows: int, cols: int, lines: int = LINES) -> Pass:
    """The pass with a tile of at most so many rows, which are then shared out evenly, and strips to match."""
    fields = {name: getattr(walk, name) for name, *_ in Pass._fields_}
    rows = -(-walk.out_height // -(-walk.out_height // rows))
    chosen = Pass(**{**fields, "rows": rows, "cols": cols})
    strips = -(-walk.in_channels // max(1, lines // chosen.lines))
    chosen.block = -(-walk.in_channels // strips)
    return chosen


def most_sums(taps: int, lanes: int) -> int:
    """Registers for sums beside a pattern's weights and what is read."""
    return max(3, (32 if lanes == LANES else 16) - taps - 2)


def heights(walk: Pass) -> tuple[int, ...]:
    """All numbers of rows that a tile has somewhere."""
    tiles = -(-walk.out_height // walk.rows)
    tops = [walk.out_height * i // tiles for i in range(tiles + 1)]
    return tuple(sorted({bottom - top for top, bottom in itertools.pairwise(tops)}))


@cache
def _tile(fields: tuple[int, ...], taps: float, kernels: float, limit: int) -> tuple[int, int]:
    walk = Pass(*fields)
    tiles = [(r, c) for c in range(2, WIDEST + 1) for r in range(1, HIGHEST + 1) if r * c <= limit]
    return min(tiles, key=lambda tile: (_cost(tiled(walk, *tile), taps, kernels), tile))


def _cost(walk: Pass, taps: float, kernels: float) -> float:
    """Cycles for each product of a vector that an output needs."""
    rows = walk.out_height / -(-walk.out_height // walk.rows)
    size, needed = rows * walk.cols, rows * walk.out_width / -(-walk.out_width // walk.cols)
    run = kernels * walk.in_channels / walk.blocks  # kernels of a strip
    each = max(taps * size / 2 + 4, 4 * taps)  # two products a cycle; those of one sum wait for each other
    sums = 40 + 1.2 * size  # they come and go with every strip
    pack = 4 * walk.lines * walk.in_channels / walk.blocks / walk.out_channels
    return (run * each + sums + pack) / (run * taps * needed)
