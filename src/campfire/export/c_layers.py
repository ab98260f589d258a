"""The weights of a layer as C reads them: dense, survivors with their places, or kernels pattern by pattern (FKW)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.export.c_blob import Blob
from campfire.kernels.codegen.book import Book, drawing

SPARSE = 0.5  # of the weights live at most: with more, skipping zeros gains nothing
MOST_PATTERNS = 16


@dataclass(frozen=True)
class Loop:
    """The function of one pattern: which taps, and how far apart the outputs read."""

    taps: tuple[bool, ...]
    wide: int
    stride: int

    @property
    def name(self) -> str:
        """Of the function in C."""
        number = sum(1 << t for t, alive in enumerate(self.taps) if alive)
        return f"pattern_{number}_{len(self.taps) // self.wide}x{self.wide}_by_{self.stride}"

    def text(self, layers: list[str]) -> str:
        """The function, with the pattern drawn and the layers it serves named."""
        taps = [t for t, alive in enumerate(self.taps) if alive]
        rows = drawing(list(self.taps), self.wide)
        serves = f"serves {', '.join(layers)}"
        comment = "\n".join(f"   {row}" + (f"    {serves}" if i == 0 else "") for i, row in enumerate(rows))
        weights = ", ".join(f"w{i} = w[{i}]" for i in range(len(taps)))
        step = f"{self.stride} * j" if self.stride > 1 else "j"
        sums = " + ".join(f"w{i} * x[{_place(t, self.wide)}{step}]" for i, t in enumerate(taps))
        return (
            f"/*\n{comment}\n*/\n"
            f"static void {self.name}(const float *restrict x, const float *w, float *restrict y, int W, int high, int wide) {{\n"
            f"  const float {weights};\n"
            f"  for (int i = 0; i < high; i++, x += {self.stride} * W, y += wide)\n"
            f"    for (int j = 0; j < wide; j++) y[j] += {sums};\n}}\n"
        )


def _place(tap: int, wide: int) -> str:
    down, right = divmod(tap, wide)
    rows = "" if down == 0 else "W + " if down == 1 else f"{down} * W + "
    return rows + (f"{right} + " if right else "")


@dataclass(frozen=True)
class Weights:
    """How one layer's weights are called upon: the C arguments, and the loops they need."""

    kind: str
    arguments: str
    loops: tuple[Loop, ...] = ()


def weights(weight: Tensor, blob: Blob, stride: int | None, plane: tuple[int, int]) -> Weights:
    """The form that suits a weight [K, C, R, S]; ``stride`` if it is square, ``plane``: rows and columns of the padded input."""
    keep = weight != 0
    if float(keep.float().mean()) > SPARSE:
        return Weights("dense", blob.add(weight.float()))
    positions = keep.flatten().nonzero()[:, 0]
    taps = weight.shape[2] * weight.shape[3]
    book = Book.of(positions, taps) if 1 < taps < 63 and len(positions) else None
    if stride and book is not None and len(book.patterns) <= MOST_PATTERNS and weight.shape[1] < 2**16:
        return _patterned(weight, keep, book, blob, stride)
    return _scattered(weight, keep, blob, plane)


def _scattered(weight: Tensor, keep: Tensor, blob: Blob, plane: tuple[int, int]) -> Weights:
    """start [K + 1]; of every survivor its place in the padded input, and its value."""
    k, c, r, s = keep.nonzero(as_tuple=True)
    start = torch.bincount(k, minlength=len(weight)).cumsum(0)
    place = (c * plane[0] + r) * plane[1] + s
    parts = torch.cat([start.new_zeros(1), start]).int(), place.int(), weight[keep].float()
    return Weights("scattered", ", ".join(map(blob.add, parts)))


def _patterned(weight: Tensor, keep: Tensor, book: Book, blob: Blob, stride: int) -> Weights:
    """Kernels by filter, pattern and channel: offset [K + 1], stride [K, P] (how many of each), index, weights."""
    outputs, inputs = book.kernel // weight.shape[1], book.kernel % weight.shape[1]
    number = len(book.patterns)
    order = torch.argsort((outputs * number + book.pattern) * weight.shape[1] + inputs)
    count = torch.bincount(outputs * number + book.pattern, minlength=len(weight) * number).view(-1, number)
    kernels = weight.flatten(2).flatten(0, 1)[book.kernel[order]].float()
    values = kernels[book.patterns[book.pattern[order]]]
    sizes = (count * book.patterns.sum(1)).sum(1).cumsum(0)
    first = torch.cat([sizes.new_zeros(1), sizes])  # value of every filter
    offset = torch.cat([count.new_zeros(1), count.sum(1).cumsum(0)])
    parts = offset.int(), first.int(), count.short(), inputs[order].short(), values
    loops = tuple(Loop(tuple(p.tolist()), weight.shape[3], stride) for p in book.patterns)
    return Weights("patterned", ", ".join(map(blob.add, parts)), loops)
