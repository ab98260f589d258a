"""Bytes of a file, part by part, beside those of the dense weights and of csr."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from campfire.files.container import SIZES

VALUES = ("value", "scale", "codebook")


@dataclass(frozen=True)
class LayerSize:
    """A packed weight: its name in the state dict, its shape, and the bytes of each of its parts."""

    name: str
    shape: tuple[int, ...]
    kept: int
    dtype: str  # of the dense weight: as it was saved, or, of a file that is read, as it is loaded (int8: float32)
    encoding: str  # of the values
    parts: dict[str, int]

    @property
    def weights(self) -> int:
        """Weights, dead ones too."""
        return math.prod(self.shape)

    @property
    def dense(self) -> int:
        """Bytes with the zeros."""
        return self.weights * SIZES[self.dtype]

    @property
    def values(self) -> int:
        """Bytes of values, and of what they are decoded with."""
        return sum(size for part, size in self.parts.items() if part in VALUES)

    @property
    def packed(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())

    @property
    def csr(self) -> int:
        """Bytes as compressed sparse rows: an int32 for each survivor and each output, and the values as they are."""
        return self.kept * (4 + SIZES[self.dtype]) + 4 * (self.shape[0] + 1)


@dataclass(frozen=True)
class Sizes:
    """All packed weights of a file; ``others`` is the bytes of its other tensors, ``total`` those of the whole file.

    >>> print(Sizes([LayerSize("conv.weight", (16, 8, 3, 3), 288, "F32", "float", {"value": 1152, "index": 16})], 64, 1500))
    weight                 shape          kept  values       bytes    values     masks   of dense
    conv.weight         16x8x3x3   288 / 1,152  float        4,608     1,152        16    25.35 %
    packed weights: 1,168 bytes, 25.35 % of 4,608; other tensors: 64; names and sizes: 268; the file: 1,500
    """

    layers: list[LayerSize]
    others: int
    total: int

    @property
    def dense(self) -> int:
        """Bytes of the packed weights with their zeros."""
        return sum(row.dense for row in self.layers)

    @property
    def packed(self) -> int:
        """Bytes of the packed weights."""
        return sum(row.packed for row in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        layers = [{**asdict(row), "dense": row.dense, "packed": row.packed} for row in self.layers]
        sums = {name: getattr(self, name) for name in ("dense", "packed", "others", "total")}
        return {"layers": layers, **sums, "ratio": self.packed / max(1, self.dense)}

    def __str__(self) -> str:
        wide = max([len(row.name) for row in self.layers] + [11])
        head = f"{'weight':{wide}}  {'shape':>15}  {'kept':>12}  {'values':8} {'bytes':>9} {'values':>9} {'masks':>9}   of dense"
        return "\n".join([head, *_lines(self.layers, wide), self.total_line()])

    def total_line(self) -> str:
        """The last line of the table."""
        names = self.total - self.packed - self.others
        if not self.layers:
            return (
                f"no weight has zeros enough to be packed; {self.others:,} bytes of tensors, the file: {self.total:,}"
            )
        return (
            f"packed weights: {self.packed:,} bytes, {self.packed / max(1, self.dense):.2%} of {self.dense:,}; "
            f"other tensors: {self.others:,}; names and sizes: {names:,}; the file: {self.total:,}"
        ).replace("%", " %")


def _lines(rows: Iterable[LayerSize], wide: int) -> list[str]:
    return [
        f"{r.name:{wide}}  {'x'.join(map(str, r.shape)):>15}  {f'{r.kept:,} / {r.weights:,}':>12}  {r.encoding:8} "
        f"{r.dense:9,} {r.values:9,} {r.packed - r.values:9,} {100 * r.packed / r.dense:8.2f} %"
        for r in rows
    ]
