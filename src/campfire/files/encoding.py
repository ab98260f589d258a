"""A mask in as few bytes as its structure allows: units that live together, cells of them, patterns, an order of outputs."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from campfire.files.bits import best_low, pack_numbers, pack_places, width_of
from campfire.files.coded import MEMBERS, PATTERNS, Coded, Keep, Shape

GROUPS = (2, 4, 8, 16, 32)  # input channels that n:m cells are tried with


def encode(keep: Keep, order: NDArray[np.integer] | None = None) -> Coded:
    """The smallest of the codings that fit a mask [K, C, R, S].

    Args:
        order: of the outputs, in which they make blocks; by default outputs with equal masks are brought together.

    >>> keep = np.zeros((64, 8, 3, 3), bool)
    >>> keep[:32, 5] = True
    >>> coded = encode(keep)
    >>> coded.unit, coded.nbytes
    ((32, 1, 3, 3), 1)
    """
    keep = np.ascontiguousarray(keep)
    order = alike(keep) if order is None else order
    found = list(_codings(keep, None))
    if order is not None:
        narrow = np.min_scalar_type(len(order) - 1)
        found += _codings(keep[order], order.astype(narrow))
    return min(found, key=lambda coded: coded.nbytes)


def unit_of(keep: Keep) -> Shape:
    """The largest unit in which a mask is uniform: along each axis it changes only at multiples of its size."""
    sizes = []
    for axis, size in enumerate(keep.shape):
        lines = np.moveaxis(keep, axis, 0)
        changes = np.flatnonzero((lines[1:] != lines[:-1]).any((1, 2, 3))) + 1
        sizes.append(math.gcd(*changes.tolist()) or size)
    return tuple(sizes)


def alike(keep: Keep) -> NDArray[np.integer] | None:
    """An order that brings outputs of equal masks together, the most frequent first; None where it would not help."""
    rows = np.packbits(keep.reshape(len(keep), -1), axis=1)
    rows = rows.view(f"V{rows.shape[1]}")[:, 0]
    _, first, which, count = np.unique(rows, return_index=True, return_inverse=True, return_counts=True)
    if len(count) > len(keep) // 2:
        return None
    return np.lexsort((first[which], -count[which]))


def _codings(keep: Keep, order: NDArray[np.integer] | None) -> Iterator[Coded]:
    unit, parts = unit_of(keep), {} if order is None else {"order": order}
    units = keep[tuple(slice(None, None, u) for u in unit)]
    yield _placed(Coded(keep.shape, unit, parts=parts), units.reshape(-1))
    for cell in _cells(units):
        cells = _cut(units, cell)
        living = np.asarray(cells.any(1))
        book, pattern = book_of(cells[living])
        if len(book) > PATTERNS:
            continue
        ids = {"pattern": pack_numbers(pattern, width_of(len(book)))} if len(book) > 1 else {}
        held = {**parts, "book": np.packbits(book), **ids}
        yield _placed(Coded(keep.shape, unit, cell, len(book), parts=held), living)


def _cells(units: Keep) -> Iterator[Shape]:
    """All taps of a kernel; some inputs, where as many of each group live."""
    taps = units.shape[2] * units.shape[3]
    if 1 < taps <= MEMBERS and units.any():
        yield 1, 1, units.shape[2], units.shape[3]
    for m in GROUPS:
        if units.shape[1] % m == 0:
            held = units.reshape(units.shape[0], -1, m, taps).sum(2)
            held = held[held > 0]
            if held.size and held.min() == held.max() < m:
                yield 1, m, 1, 1


def _cut(units: Keep, cell: Shape) -> Keep:
    """[grid] -> [cells, units of a cell]."""
    sizes = [n for g, c in zip(units.shape, cell, strict=True) for n in (g // c, c)]
    return units.reshape(sizes).transpose(0, 2, 4, 6, 1, 3, 5, 7).reshape(-1, math.prod(cell))


def book_of(cells: Keep) -> tuple[Keep, NDArray[np.integer]]:
    """The distinct rows of bool [n, up to 64], rising as binary numbers, and which of them each row is."""
    size = cells.shape[1]
    if size <= 16:
        codes = cells @ (1 << np.arange(size - 1, -1, -1, dtype=np.int32))
        seen = np.zeros(1 << size, bool)
        seen[codes] = True
        found, pattern = np.flatnonzero(seen), (np.cumsum(seen) - 1)[codes]
    else:
        whole = np.zeros((len(cells), MEMBERS), bool)
        whole[:, MEMBERS - size :] = cells
        codes = np.packbits(whole, axis=1).view(">u8")[:, 0].astype(np.uint64)
        found, pattern = np.unique(codes, return_inverse=True)
    bits = np.unpackbits(found.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    return bits[:, MEMBERS - size :].astype(bool), pattern


def _placed(coded: Coded, living: Keep) -> Coded:
    """With the places of what lives."""
    if living.all():
        return coded
    places = np.flatnonzero(living)
    low, _ = best_low(places, len(living))
    high, rest = pack_places(places, low)
    index = {"index": high, "low": rest} if low else {"index": high}
    return dataclasses.replace(coded, low=low, parts={**coded.parts, **index})
