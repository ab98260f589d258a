"""Register tiles of generated code: which one suits a layer, from a model of the cycles or from what was timed."""

import itertools
import re
from dataclasses import dataclass
from functools import cache

from campfire.kernels import timings
from campfire.kernels.lanes.plan import LANES, Pass
from campfire.kernels.stopwatch import setting

LINES = 1100  # vectors of a strip: each is read for several products, so that some may come from the second cache
TILES, STRIPS = 4, (700, 1600)  # to be timed: the model's best; vectors beside the usual number, for its choice
HIGHEST, WIDEST = 8, 14
GAIN = 1.03  # times faster than the model's choice, before another tile takes its place


@dataclass(frozen=True)
class Need:
    """What a tile is chosen for.

    Args:
        walk: the pass, its tile open.
        taps: of a kernel, on average.
        most: taps of a pattern.
        kernels: alive, per output and input channel.
        lanes: of one register.
    """

    walk: Pass
    taps: float
    most: int
    kernels: float
    lanes: int

    @property
    def key(self) -> str:
        """Under which its timings are kept: layers that differ by less than 5 % of the kernels share."""
        sizes = "x".join(str(getattr(self.walk, name)) for name, *_ in Pass._fields_)
        return (
            f"tile {sizes} taps:{self.taps:.1f}/{self.most} kernels:{round(20 * self.kernels) * 5} lanes:{self.lanes}"
        )

    def chosen(self) -> Pass:
        """The pass with the tile that was fastest here when it was tuned, else with the cheapest by the model."""
        if (best := kept_best(self.key, 3)) and self._is_tile(*best):
            return tiled(self.walk, *best)
        return tiled(self.walk, *cheapest(self)[0])

    def _is_tile(self, rows: int, cols: int, lines: int) -> bool:
        """Whether it is one that would be tried: a file of timings may have been damaged."""
        few = 0 < rows <= HIGHEST and 1 < cols <= WIDEST and rows * cols <= most_sums(self.most, self.lanes)
        return few and lines in (LINES, *STRIPS)

    def candidates(self) -> dict[str, Pass]:
        """The tiles to be timed, the model's choice first; names are rows, columns and vectors of a strip."""
        best, *others = cheapest(self)[:TILES]
        wanted = [(*best, LINES), *((*tile, LINES) for tile in others), *((*best, lines) for lines in STRIPS)]
        found: dict[tuple[int, ...], tuple[str, Pass]] = {}
        for rows, cols, lines in wanted:
            walk = tiled(self.walk, rows, cols, lines)
            found.setdefault((walk.rows, walk.cols, walk.block), (f"{walk.rows}x{cols}x{lines}", walk))
        return dict(found.values())


def kept_best(key: str, numbers: int) -> list[int]:
    """So many numbers, the name of what was faster than the usual choice when it was tuned here; [] where nothing was."""
    ratios = (timings.find(f"{key} {setting()}") or {"ratios": {}})["ratios"]
    best = max(ratios, key=ratios.__getitem__, default="")
    named = re.fullmatch(r"\d{1,6}" + r"x\d{1,6}" * (numbers - 1), best, re.ASCII)
    return [int(n) for n in best.split("x")] if named and ratios[best] > GAIN else []


def cheapest(need: Need) -> list[tuple[int, int]]:
    """Tiles, rows x columns, by what the model thinks of them; of those that are cut alike one."""
    fields = tuple(getattr(need.walk, name) for name, *_ in Pass._fields_)
    return _tiles(
        fields, max(1.0, round(need.taps, 1)), max(0.02, round(need.kernels, 2)), most_sums(need.most, need.lanes)
    )


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
def _tiles(fields: tuple[int, ...], taps: float, kernels: float, limit: int) -> list[tuple[int, int]]:
    walk = Pass(*fields)
    tiles = [(r, c) for c in range(2, WIDEST + 1) for r in range(1, HIGHEST + 1) if r * c <= limit]
    tiles = sorted(tiles, key=lambda tile: (_cost(tiled(walk, *tile), taps, kernels), tile))
    return list({(tiled(walk, *tile).rows, tile[1]): tile for tile in reversed(tiles)}.values())[::-1]


def _cost(walk: Pass, taps: float, kernels: float) -> float:
    """Cycles for each product of a vector that an output needs."""
    rows = walk.out_height / -(-walk.out_height // walk.rows)
    size, needed = rows * walk.cols, rows * walk.out_width / -(-walk.out_width // walk.cols)
    run = kernels * walk.in_channels / walk.blocks  # kernels of a strip
    each = max(taps * size / 2 + 4, 4 * taps)  # two products a cycle; those of one sum wait for each other
    sums = 40 + 1.2 * size  # they come and go with every strip
    pack = 4 * walk.lines * walk.in_channels / walk.blocks / walk.out_channels
    return (run * each + sums + pack) / (run * taps * needed)
