"""Books: the tap patterns of a mask's living kernels, drawn, and which kernel has which."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.packed import LAYOUTS, Packed


@dataclass(frozen=True)
class Book:
    """``patterns`` bool [P, R S]; of every living kernel, k C + c rising, its number in the weight and in the book.

    >>> book = Book.of(torch.tensor([0, 3, 8, 11]), 4)
    >>> book.kernel.tolist(), book.pattern.tolist(), book.patterns.int().tolist()
    ([0, 2], [0, 0], [[1, 0, 0, 1]])
    """

    patterns: Tensor
    kernel: Tensor
    pattern: Tensor

    @classmethod
    def of(cls, positions: Tensor, taps: int) -> "Book":
        """The book of survivors at ``positions`` of the flat weight, rising."""
        kernel, which = torch.unique_consecutive(positions // taps, return_inverse=True)
        code = torch.zeros(len(kernel), dtype=torch.int64).index_add_(0, which, 1 << (positions % taps))
        codes, pattern = torch.unique(code, return_inverse=True)
        return cls((codes[:, None] >> torch.arange(taps)) % 2 == 1, kernel, pattern)


def patterns_of(packed: Packed) -> Tensor:
    """The patterns of a weight's kernels, bool [P, R S]; found once for each Packed."""
    if packed.layout == "tap":
        return packed.parts["book"]
    kept = vars(packed)
    if "patterns" not in kept:
        positions = LAYOUTS[packed.layout].positions(packed).sort().values
        kept["patterns"] = Book.of(positions, packed.shape[2] * packed.shape[3]).patterns
    return kept["patterns"]


def drawing(pattern: list[bool], wide: int) -> tuple[str, ...]:
    """A pattern's rows, ``x`` where it has a weight.

    >>> drawing([True, False, True, True], 2)
    ('x .', 'x x')
    """
    rows = [pattern[i : i + wide] for i in range(0, len(pattern), wide)]
    return tuple(" ".join("x" if alive else "." for alive in row) for row in rows)


def drawings(book: Book, wide: int) -> tuple[tuple[str, ...], ...]:
    """All patterns of a book."""
    return tuple(drawing(pattern.tolist(), wide) for pattern in book.patterns)
