"""tap: living kernels with few taps, as ids into a book of tap patterns (window, n:m, pattern)."""

from typing import Any

import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.packed.base import Layout, Packed
from campfire.packed.checks import why_not_rising, why_not_within

MOST = 2**15  # patterns that an int16 can name


class Tap(Layout):
    """``kernel`` int32 [n]: k C + c, rising; ``pattern`` [n]: id into ``book`` bool [P, R S]; ``value`` [total, 1].

    Values lie kernel by kernel, taps rising. ``pattern`` is uint8, or int16 where the book has more than 256 rows;
    every row of the book is used, no two are equal, none is empty.
    ::

        K = 2, C = 2, 2 x 2 taps

        | 1 . | . . |        kernel   0 2 3
        | . 2 | . . |        pattern  0 1 0         value  1 2 3 4 5 6
        +-----+-----+
        | . 3 | 5 . |        book     0: x . . x
        | . 4 | . 6 |                 1: . x . x

    >>> from campfire.packed import pack
    >>> weight = torch.tensor([[[1.0, 0, 0, 2], [0, 0, 0, 0]], [[0, 3, 0, 4], [5, 0, 0, 6]]]).view(2, 2, 2, 2)
    >>> parts = pack(weight, Mask(weight != 0), "tap").parts
    >>> parts["kernel"].tolist(), parts["pattern"].tolist(), parts["book"].int().tolist()
    ([0, 2, 3], [0, 1, 0], [[1, 0, 0, 1], [0, 1, 0, 1]])
    """

    name = "tap"
    parts = {"kernel": (1, (torch.int32,)), "pattern": (1, (torch.uint8, torch.int16)), "book": (2, (torch.bool,))}

    def why_not(self, mask: Mask, **options: Any) -> list[str]:
        taps = _taps(mask)
        patterns = len(_book(taps)[0]) if len(taps) > MOST else 0
        return [f"its kernels have {patterns} patterns of taps; a book has {MOST} at most"] if patterns > MOST else []

    def indices(self, mask: Mask, **options: Any) -> dict[str, Tensor]:
        book, pattern = _book(_taps(mask))
        kernel = mask.keep.flatten(2).any(2).flatten().nonzero()[:, 0]
        narrow = torch.uint8 if len(book) <= 256 else torch.int16
        return {"kernel": kernel.to(torch.int32), "pattern": pattern.to(narrow), "book": book}

    def value_shape(self, packed: Packed) -> tuple[int, ...]:
        book, pattern = packed.parts["book"], packed.parts["pattern"]
        return int(book.sum(1)[pattern.long()].sum()), 1

    def positions(self, packed: Packed) -> Tensor:
        kernel, pattern, book = (packed.parts[part] for part in ("kernel", "pattern", "book"))
        entry, tap = book[pattern.long()].nonzero(as_tuple=True)
        return kernel.long()[entry] * book.shape[1] + tap

    def why_bad_indices(self, packed: Packed) -> list[str]:
        kernel, pattern, book = (packed.parts[part] for part in ("kernel", "pattern", "book"))
        outputs, inputs, height, width = packed.shape
        if pattern.numel() != kernel.numel():
            return [f"each of {kernel.numel()} kernels has a pattern; got {pattern.numel()}"]
        if book.shape[1] != height * width:
            return [f"a row of the book has {height * width} taps; got {book.shape[1]}"]
        return (
            why_not_rising("kernel", kernel, outputs * inputs)
            or why_not_within("pattern", pattern, len(book))
            or _why_bad_book(book, pattern)
        )


def _taps(mask: Mask) -> Tensor:
    """The taps of the living kernels, bool [n, R S]."""
    taps = mask.keep.flatten(2).flatten(0, 1)
    return taps[taps.any(1)]


def _book(taps: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct rows [P, T] of ``taps`` [n, T], first taps first, and the row of each [n]: 31 taps at a time."""
    pattern = torch.zeros(len(taps), dtype=torch.int64, device=taps.device)
    for bits in taps.split(31, dim=1):
        weight = 2 ** torch.arange(bits.shape[1] - 1, -1, -1, device=taps.device)
        code = (pattern << 31) - (bits * weight).sum(1)
        pattern = torch.unique(code, return_inverse=True)[1]
    book = taps.new_zeros(int(pattern.max()) + 1 if len(taps) else 0, taps.shape[1])
    book[pattern] = taps  # equal rows write the same
    return book, pattern


def _why_bad_book(book: Tensor, pattern: Tensor) -> list[str]:
    used = torch.zeros(len(book), dtype=torch.bool, device=book.device).index_fill(0, pattern.long(), True)
    if not bool(used.all()):
        return [f"{int((~used).sum())} rows of the book are not used"]
    if not bool(book.any(1).all()):
        return ["a row of the book is empty"]
    return [] if len(_book(book)[0]) == len(book) else ["two rows of the book are equal"]
