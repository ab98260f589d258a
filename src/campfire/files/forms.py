"""Which structure a mask has: of those whose own rule it meets, the one that tells it in the fewest bits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from campfire.files.coded import MEMBERS, Keep, Shape
from campfire.files.encoding import GROUPS, alike, book_of, unit_of
from campfire.mask import Mask
from campfire.packed import LAYOUTS
from campfire.structures import named

BOOK = 16  # most patterns that are called a book


@dataclass(frozen=True)
class Form:
    """A structure that a mask meets, by its spelling or in words; ``bits`` tell the mask from all others that do.

    Bits count the masks of the structure with as many units alive, and what was chosen once: an order, a book.
    """

    name: str
    bits: float


def forms(keep: Keep, order: np.ndarray | None = None) -> list[Form]:
    """All structures that a mask [K, C, R, S] meets, the tightest first.

    Args:
        order: of the outputs, if it is known; by default those of equal masks are brought together.

    >>> keep = np.zeros((32, 16, 3, 3), bool)
    >>> keep[:, ::2] = True
    >>> [form.name for form in forms(keep)][:3]
    ['outputs and inputs', 'tiles:rows=32,channels=1', 'kernel']
    """
    alive = int(np.count_nonzero(keep))
    if alive in (0, keep.size):
        return [Form("dense" if alive else "empty", 0.0)]
    keep = np.ascontiguousarray(keep)
    mask = Mask(torch.from_numpy(keep))
    found = [*_grains(mask, alive), *_blocks(keep), *_regrouped(keep, order), *_groups(mask), *_windows(mask)]
    found += [Form("fine", choices(keep.size, alive))]
    return sorted(found, key=lambda form: form.bits)


def choices(n: int, k: int) -> float:
    """log2 of how many ways there are to choose k of n.

    >>> round(2 ** choices(9, 4))
    126
    """
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def _grains(mask: Mask, alive: int) -> Iterator[Form]:
    """Rows, kernels, filters; and what is left when outputs and inputs go."""
    outputs, inputs, height, width = shape = tuple(mask.keep.shape)
    sizes = {"filter": math.prod(shape[1:]), "kernel": height * width, "vector": width}
    for name, size in sizes.items():
        if size > 1 and not named(name).why_invalid(mask):
            yield Form(name, choices(mask.keep.numel() // size, alive // size))
    if not LAYOUTS["shrunk"].why_not(mask):
        kernels = mask.keep.flatten(2).any(2)
        k, c = int(kernels.any(1).sum()), int(kernels.any(0).sum())
        yield Form("outputs and inputs", choices(outputs, k) + choices(inputs, c))


def _blocks(keep: Keep) -> Iterator[Form]:
    unit, shape = unit_of(keep), keep.shape
    if math.prod(unit[:2]) == 1:
        return
    whole = unit[2:] == shape[2:]
    if whole and not any(n % u for n, u in zip(shape, unit, strict=True)):
        name = f"tiles:rows={unit[0]},channels={unit[1]}"
        if named(name).why_invalid(Mask(torch.from_numpy(keep))):
            return
    else:
        name = f"blocks of {unit[0]} outputs x {unit[1]} inputs" + ("" if whole else f" x {unit[2]} x {unit[3]} taps")
    yield Form(name, _bits(keep, unit))


def _regrouped(keep: Keep, order: np.ndarray | None) -> Iterator[Form]:
    """Blocks over an order of the outputs."""
    order = alike(keep) if order is None else order
    if order is None:
        return
    ordered = keep[order]
    rows, channels = unit_of(ordered)[:2]
    if rows <= unit_of(keep)[0]:
        return
    held = ordered[::rows, ::channels].reshape(-(-len(keep) // rows), -(-keep.shape[1] // channels), -1).sum(2)
    thin = held[held > 0].min()
    taps = keep.shape[2] * keep.shape[3]
    name = f"hrbp:rows={rows},channels={channels},inputs=neighbours"
    if thin < taps or held.max() < taps:
        name = f"hrbp++:rows={rows},channels={channels},inputs=neighbours,taps={thin}"
    plan = {"order": torch.from_numpy(np.asarray(order, np.int64))}
    plan["inputs"] = torch.arange(keep.shape[1]).expand(-(-len(keep) // rows), -1).contiguous()
    if named(name).why_invalid(Mask(torch.from_numpy(keep), plan)):
        name = f"regrouped vectors of {rows} outputs"
    groups, left = divmod(len(keep), rows)
    orders = math.lgamma(len(keep) + 1) - groups * math.lgamma(rows + 1) - math.lgamma(left + 1)
    yield Form(name, _bits(ordered, unit_of(ordered)) + orders / math.log(2))


def _bits(keep: Keep, unit: Shape) -> float:
    units = keep[tuple(slice(None, None, u) for u in unit)]
    return choices(units.size, int(np.count_nonzero(units)))


def _groups(mask: Mask) -> Iterator[Form]:
    """n of every m input channels."""
    outputs, inputs, height, width = mask.keep.shape
    for m in GROUPS:
        if inputs % m:
            continue
        n = int(mask.keep.view(outputs, -1, m, height, width)[0, 0, :, 0, 0].sum())
        name = f"nm:n={n},m={m}"
        if 0 < n < m and not named(name).why_invalid(mask):
            yield Form(name, mask.keep.numel() // m * choices(m, n))


def _windows(mask: Mask) -> Iterator[Form]:
    """The same number of taps in every kernel, or nearly; and few patterns of taps."""
    taps = mask.keep.shape[2] * mask.keep.shape[3]
    kernels = mask.keep.reshape(-1, taps)
    held = kernels.sum(1)
    living = kernels[held > 0]
    levels, counts = held[held > 0].unique(return_counts=True)
    if taps == 1 or int(levels[-1]) == taps == int(levels[0]):
        return
    places, each = choices(len(held), len(living)), list(zip(levels.tolist(), counts.tolist(), strict=True))
    bits = places + sum(count * choices(taps, n) for n, count in each)
    bits += choices(len(living), each[0][1]) if len(each) > 1 else 0
    if (name := _first_valid(mask, "window", "window:mode=mixed", "combined")) and len(each) <= 2:
        yield Form(name, bits)
    if taps > MEMBERS:
        return
    book, _ = book_of(living.numpy())
    if len(book) <= BOOK:
        side = math.isqrt(taps)
        spelled = f"pattern:book=auto:{len(book)},entries={each[0][0]},size={side}"
        fits = len(each) == 1 and side * side == taps and 2 <= side <= 7 and _first_valid(mask, spelled)
        yield Form(
            fits or f"pattern, a book of {len(book)}", places + math.log2(len(book)) * len(living) + len(book) * taps
        )


def _first_valid(mask: Mask, *names: str) -> str:
    """The first structure of these that a mask is of, or none."""
    return next((name for name in names if not named(name).why_invalid(mask)), "")
