"""Books of tap patterns: ClickTrain's fixed ones, and the patterns that a layer's own kernels ask for.

A pattern is a row of bools, one a tap, row-major. Its number is the place of its zero positions among all sets of as many,
in lexicographic order, from 1 on: ClickTrain's numbering of the C(9, 5) = 126 patterns of 4 in 3x3.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.selection import keep_best_rows

FIXED = (3, 12, 65, 120, 1, 14, 44, 53, 125, 6, 126, 7)  # P1 to P12; P12 as the code prints it, not as its comment says
SIZES = (4, 8, 12)


def pattern(number: int, taps: int = 9, entries: int = 4) -> list[bool]:
    """The pattern of a number: which taps live.

    >>> "".join(".x"[tap] for tap in pattern(3)), "".join(".x"[tap] for tap in pattern(120))
    ('....xx.xx', 'xx.xx....')

    Raises:
        UsageError: there are not so many.
    """
    if not 1 <= number <= math.comb(taps, entries):
        raise UsageError(
            f"patterns of {entries} of {taps} taps have numbers from 1 to {math.comb(taps, entries)}; got {number}"
        )
    left, before, row = taps - entries, number - 1, []
    for tap in range(taps):
        dead_here = math.comb(taps - tap - 1, left - 1) if left else 0  # sets whose next zero is this tap
        row.append(before >= dead_here)
        if row[-1]:
            before -= dead_here
        else:
            left -= 1
    return row


def number(row: Sequence[bool]) -> int:
    """The number of a pattern.

    >>> [number(pattern(n)) for n in (1, 3, 126)]
    [1, 3, 126]
    """
    left, before = list(row).count(False), 0
    for tap, lives in enumerate(row):
        if lives and left:
            before += math.comb(len(row) - tap - 1, left - 1)
        left -= not lives
    return before + 1


def rows(row: Sequence[bool], width: int = 3) -> str:
    """A pattern as it is drawn in one line: its rows, top to bottom.

    >>> rows(pattern(14))
    '000/111/010'
    """
    text = "".join("01"[bool(tap)] for tap in row)
    return "/".join(text[at : at + width] for at in range(0, len(text), width))


def numbers(book: str) -> list[int]:
    """The patterns that a book names, by number: ``fixed8``, or ``3+12+65``; none for ``auto:N``.

    Raises:
        UsageError: it is no book, or names a pattern twice.
    """
    if book.startswith("fixed") and book[5:].isdecimal() and int(book[5:]) in SIZES:
        return list(FIXED[: int(book[5:])])
    if size(book):
        return []
    parts = book.split("+")
    if not all(part.strip().isdecimal() for part in parts):
        raise UsageError(f"a book is fixed4, fixed8, fixed12, auto:N, or numbers such as 3+12+65+120; got {book!r}")
    found = [int(part) for part in parts]
    if len(set(found)) < len(found):
        raise UsageError(f"book {book!r} names a pattern twice")
    return found


def size(book: str) -> int:
    """N of ``auto:N``; 0 for another book."""
    kind, _, most = book.partition(":")
    return int(most) if kind == "auto" and most.isdecimal() else 0


def winners(kernels: Tensor, entries: int, most: int, centre: bool = False) -> Tensor:
    """The patterns that most kernels would choose among all, the most frequent first; of equally frequent ones the first number.

    A kernel's best pattern of all is its ``entries`` best taps, so none of the others need be scored.

    Args:
        kernels: importance >= 0, [n, taps]; kernels without any have no say.
        most: patterns in the book, fewer where kernels ask for fewer.
        centre: the middle tap lives in every pattern.

    Returns:
        bool [N, taps], N <= most.
    """
    some = sums(kernels) > 0
    voters = (kernels if bool(some.all()) or not bool(some.any()) else kernels[some]).float()
    if centre:
        voters = voters.clone()
        voters[:, kernels.shape[1] // 2] = torch.inf
    chosen, votes = torch.unique(codes(keep_best_rows(voters, entries)), return_counts=True)
    best = chosen[votes.argsort(descending=True, stable=True)[:most]]
    return (best[:, None] & _places(kernels.shape[1], best.device)) > 0


def used(keep: Tensor) -> tuple[tuple[int, str, int], ...]:
    """The patterns that the kernels of a mask [K, C, R, S] have, the most frequent first: number, rows, how many kernels.

    Dead kernels, and those that keep every tap, have none.
    """
    kernels = keep.flatten(2).flatten(0, 1).cpu()
    held = sums(kernels)
    kernels = kernels[(held > 0) & (held < kernels.shape[1])]
    found, votes = torch.unique(codes(kernels), return_counts=True)
    drawn = ((found[:, None] & _places(kernels.shape[1], kernels.device)) > 0).tolist()
    most = votes.argsort(descending=True, stable=True).tolist()
    return tuple((number(drawn[i]), rows(drawn[i], keep.shape[3]), int(votes[i])) for i in most)


def codes(taps: Tensor) -> Tensor:
    """Rows of up to 52 taps [n, taps] as int64 [n]; of patterns with equally many taps, in the order of their numbers."""
    return (taps.double() @ _places(taps.shape[1], taps.device).double()).long()


def sums(kernels: Tensor) -> Tensor:
    """The sum of every row [n], float64: a product with ones, as reducing short rows takes many times longer."""
    return kernels.double() @ kernels.new_ones(kernels.shape[1], dtype=torch.float64)


def _places(taps: int, device: torch.device) -> Tensor:
    return 2 ** torch.arange(taps - 1, -1, -1, device=device)


def best_patterns(kernels: Tensor, book: Tensor) -> Tensor:
    """The pattern of the book that holds most of each kernel's importance, bool [n, taps] for [n, taps].

    Of equally good ones that whose taps come last, as everywhere else.
    """
    book = book[codes(book).argsort()]
    last = (book * torch.arange(book.shape[1], device=book.device)).sum(1)
    book = book[last.argsort(descending=True, stable=True)]
    return book[(kernels.double() @ book.double().t()).argmax(1)]  # of equal ones argmax takes the first


def why_bad_book(book: Tensor, taps: int, entries: int, most: int) -> list[str]:
    """Reasons why a tensor is not up to ``most`` different patterns of ``entries`` of ``taps``; [] when it is."""
    if book.dtype != torch.bool or book.dim() != 2 or book.shape[1] != taps or not 0 < len(book) <= most:
        return [f"a book is bool [1 to {most} patterns, {taps} taps]; got {book.dtype} {tuple(book.shape)}"]
    if wrong := [n for n in book.sum(1).tolist() if n != entries]:
        return [f"a pattern of the book has {entries} entries; got {wrong[0]}"]
    return [] if len(book.unique(dim=0)) == len(book) else ["two patterns of the book are equal"]
