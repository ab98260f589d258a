"""The mask of a layer as a file holds it, and how it is read."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from campfire.errors import CheckpointError
from campfire.files.bits import LOWEST, unpack_numbers, unpack_places, width_of

Keep = NDArray[np.bool_]
Shape = tuple[int, ...]
MEMBERS = 64  # most units of a cell
PATTERNS = 2**16  # most patterns of a book


@dataclass(frozen=True)
class Coded:
    """The mask of a weight [K, C, R, S], as a file holds it.

    A unit of k x c x r x s weights lives or dies as a whole; at the edges units are smaller. Without ``cell`` the places
    of living units are stored. With it, those of cells of units, and for each the number of its pattern in a book. All
    live where there is no ``index``. Row j of what is coded is output order[j].

    >>> index = np.array([0b00000100], np.uint8)  # the unit of the first 32 outputs and input 5
    >>> keep = decode(Coded((64, 8, 3, 3), (32, 1, 3, 3), parts={"index": index}), most=288)
    >>> keep[:32, 5].all(), keep.sum()
    (np.True_, np.int64(288))
    """

    shape: Shape  # [K, C, R, S]
    unit: Shape
    cell: Shape | None = None  # in units
    patterns: int = 0  # in the book
    low: int = 0
    parts: dict[str, NDArray[Any]] = field(default_factory=dict)  # index, low, pattern, book, order

    @property
    def grid(self) -> Shape:
        """How many units each axis has."""
        return tuple(-(-n // u) for n, u in zip(self.shape, self.unit, strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())


def decode(coded: Coded, most: int) -> Keep:
    """The mask [K, C, R, S]; nothing larger is made before everything is checked.

    Args:
        most: no more weights than this live.

    Raises:
        CheckpointError: the parts describe no mask of this shape.
    """
    _require_sizes(coded)
    grid, cell = coded.grid, coded.cell
    count = math.prod(grid) // (math.prod(cell) if cell else 1)
    living = np.ones(count, bool) if "index" not in coded.parts else _living(coded, count, most)
    units = (living if cell is None else _patterned(coded, living, cell)).reshape(grid)
    for axis, (size, u) in enumerate(zip(coded.shape, coded.unit, strict=True)):
        if u > 1:
            repeats = np.full(units.shape[axis], u)
            repeats[-1] = size - u * (len(repeats) - 1)
            units = np.repeat(units, repeats, axis)
    if (order := coded.parts.get("order")) is None:
        return units
    keep = np.empty_like(units)
    keep[order] = units
    return keep


def _living(coded: Coded, count: int, most: int) -> Keep:
    return unpack_places(coded.parts["index"], coded.parts.get("low"), coded.low, count, most)


def _patterned(coded: Coded, living: Keep, cell: Shape) -> Keep:
    book, found = _book(coded, math.prod(cell)), int(np.count_nonzero(living))
    pattern = coded.parts.get("pattern", np.empty(0, np.uint8))
    pattern = unpack_numbers(pattern, width_of(len(book)), found, "pattern")
    if found and int(pattern.max()) >= len(book):
        raise CheckpointError(f"a pattern is not among the {len(book)} of its book")
    cells = np.zeros((len(living), book.shape[1]), bool)
    cells[living] = book[pattern]
    counts = [g // c for g, c in zip(coded.grid, cell, strict=True)]
    return cells.reshape(*counts, *cell).transpose(0, 4, 1, 5, 2, 6, 3, 7)


def _book(coded: Coded, members: int) -> Keep:
    """bool [P, units of a cell]; its rows rise as binary numbers, so none is empty and no two are equal."""
    book = unpack_numbers(coded.parts["book"], 1, coded.patterns * members, "book").reshape(-1, members).astype(bool)
    padded = np.zeros((len(book), MEMBERS), bool)
    padded[:, MEMBERS - members :] = book
    codes = np.packbits(padded, axis=1).view(">u8")[:, 0]
    if (codes[:1] == 0).any() or (codes[1:] <= codes[:-1]).any():
        raise CheckpointError("the rows of a book do not rise from 1")
    return book


def _require_sizes(coded: Coded) -> None:
    shape, unit, cell, parts = coded.shape, coded.unit, coded.cell, coded.parts
    if len(unit) != 4 or not all(0 < u <= n for u, n in zip(unit, shape, strict=True)):
        raise CheckpointError(f"a unit of {unit} weights does not fit {shape}")
    if cell is not None and not (
        len(cell) == 4 and all(c > 0 and g % c == 0 for g, c in zip(coded.grid, cell, strict=True))
    ):
        raise CheckpointError(f"cells of {cell} units do not divide {coded.grid}")
    if cell is not None and math.prod(cell) > MEMBERS:
        raise CheckpointError(f"a cell has {MEMBERS} units at most; got {cell}")
    if not 0 <= coded.patterns <= PATTERNS:
        raise CheckpointError(f"a book has {PATTERNS} patterns at most; got {coded.patterns}")
    if not 0 <= coded.low <= LOWEST:
        raise CheckpointError(f"a gap has {LOWEST} low bits at most; got {coded.low}")
    order = parts.get("order")
    if order is not None and not np.array_equal(np.sort(order), np.arange(shape[0])):
        raise CheckpointError(f"order is not a permutation of {shape[0]} outputs")
