"""Few images: neighbouring pixels are the lanes, the padded map being one row; how a pass walks over it."""

import ctypes
import itertools
from dataclasses import dataclass

import torch

from campfire.kernels.codegen.plan import kept_best
from campfire.kernels.lanes.plan import LANES, Geometry

SUMS = 640  # vectors of 16: what a first cache of 48 KB holds beside weights and inputs that pass by
TASKS = 2  # for each thread
FEWEST = 16  # outputs that share an input


class Flat(ctypes.Structure):
    """``struct Flat`` of patterns_flat.h, field by field."""

    _fields_ = [
        (name, ctypes.c_int32)
        for name in (
            *("images", "in_channels", "in_height", "in_width", "out_channels", "out_height", "out_width"),
            *("taps_high", "taps_wide", "top", "left", "vectors", "tiles", "chunk", "plane"),
        )
    ]

    @property
    def chunks(self) -> int:
        """Chunks that the outputs are cut into."""
        return -(-self.out_channels // self.chunk)

    @property
    def widest(self) -> int:
        """Vectors of the largest tile."""
        return -(-self.vectors // self.tiles)

    @property
    def sizes(self) -> tuple[int, ...]:
        """All numbers of vectors that a tile has somewhere."""
        firsts = [self.vectors * i // self.tiles for i in range(self.tiles + 1)]
        return tuple(sorted({last - first for first, last in itertools.pairwise(firsts)}))


def fits(g: Geometry) -> bool:
    """Whether a layer has few images, and taps whose padding after a row can be that before the next."""
    few = 2 * g.images <= LANES and g.stride == 1 and g.out is None
    return few and 0 <= g.padding < min(g.taps_high, g.taps_wide) and min(g.out_size) > 0


def flat_ahead(g: Geometry) -> Flat:
    """The forward pass, its tiles not chosen yet."""
    sizes = g.inputs, g.height, g.width, g.outputs, *g.out_size
    return Flat(g.images, *sizes, g.taps_high, g.taps_wide, g.padding, g.padding)


def flat_back(g: Geometry) -> Flat:
    """The gradient of the input: the output's under the same taps, turned round."""
    sizes = g.outputs, *g.out_size, g.inputs, g.height, g.width
    padding = g.taps_high - 1 - g.padding, g.taps_wide - 1 - g.padding
    return Flat(g.images, *sizes, g.taps_high, g.taps_wide, *padding)


def cut(walk: Flat, lanes: int, vectors: int, chunk: int) -> Flat:
    """The pass in tiles of at most so many vectors and chunks of at most so many outputs, shared out evenly."""
    made = Flat(*(getattr(walk, name) for name, *_ in Flat._fields_))
    row = (walk.in_width + walk.left) * walk.images
    pixels = (walk.out_height - 1) * row + walk.out_width * walk.images
    reach = (walk.taps_high - 1) * row + (walk.taps_wide - 1) * walk.images
    made.vectors = -(-pixels // lanes)
    made.tiles = -(-made.vectors // vectors)
    made.chunk = -(-walk.out_channels // -(-walk.out_channels // chunk))
    lines = made.vectors + max(-(-reach // lanes), -(-(walk.top * row) // lanes))
    made.plane = (lines + 1 - lines % 2) * lanes  # odd: channels do not alias
    return made


@dataclass(frozen=True)
class FlatNeed:
    """What a pass wants of its tiles; ``most``: taps of a pattern, ``kernels``: alive, per output and input channel."""

    walk: Flat
    most: int
    kernels: float
    lanes: int

    @property
    def key(self) -> str:
        """Under which its timings are kept."""
        sizes = "x".join(str(getattr(self.walk, name)) for name, *_ in Flat._fields_)
        return f"flat {sizes} taps:{self.most} kernels:{round(20 * self.kernels) * 5} lanes:{self.lanes}"

    def candidates(self) -> dict[str, Flat]:
        """Ways to cut the pass, the usual one first; names are vectors of a tile and outputs of a chunk."""
        vectors = self._vectors
        chunk = self._chunk(vectors)
        wanted = [(vectors, chunk), (vectors, 2 * chunk), (vectors, max(1, chunk // 2))]
        wanted += [(fewer, self._chunk(fewer)) for fewer in (vectors - 1, vectors // 2) if fewer]
        found: dict[tuple[int, int], tuple[str, Flat]] = {}
        for each in wanted:
            walk = cut(self.walk, self.lanes, *each)
            found.setdefault((walk.tiles, walk.chunk), ("{}x{}".format(*each), walk))
        return dict(found.values())

    def chosen(self) -> Flat:
        """What was fastest here when it was tuned, else the usual."""
        vectors, chunk = kept_best(self.key, 2) or (0, 0)
        if not 0 < vectors <= self._vectors or not 0 < chunk <= 2 * self._chunk(vectors):  # none, or a damaged file
            vectors, chunk = self._vectors, self._chunk(self._vectors)
        return cut(self.walk, self.lanes, vectors, chunk)

    @property
    def _vectors(self) -> int:
        """As many as registers hold with their inputs under all taps of a pattern."""
        return max(1, ((32 if self.lanes == LANES else 16) - 6) // (self.most + 1))

    def _chunk(self, vectors: int) -> int:
        """Outputs whose sums fit the first cache, unless threads would be idle."""
        walk = cut(self.walk, self.lanes, vectors, 1)
        fit = SUMS * LANES // self.lanes // walk.widest
        share = walk.out_channels * walk.tiles // (TASKS * torch.get_num_threads())
        return max(1, min(walk.out_channels, fit, max(share, FEWEST)))
