"""Tiles: boxes of outputs x inputs x all taps, for convolutions; what the block kernels run."""

from dataclasses import dataclass

from campfire.errors import UsageError
from campfire.structures.base import Grain, Shape


@dataclass(frozen=True)
class Tiles(Grain):
    """Boxes of ``rows`` outputs x ``channels`` inputs x all taps live or die together, by their sum of |w|.

                   c=0..3    c=4..7    c=8..11
        k= 0..31  x x x x   . . . .   x x x x
        k=32..63  . . . .   x x x x   x x x x      (each x a whole kernel, 32 of them one below the other)

    Keeps: the heaviest boxes; one index serves rows x channels x R x S weights.
    Hardware: vector units. 32 outputs share every input they read: the block kernels of `campfire bench kernels` run
    the forward pass and both backward passes from one copy; 16 is the least they take, 4 channels make d_input pay.
    Layers whose sizes are no multiples stay dense. Costs more accuracy than ck at the same sparsity.
    Source: blocks as in HRBP (Ma et al. 2024), aligned, that is without regrouping the outputs.
    """

    name, grain = "tiles", "k c r s"
    layout = "unit"
    rows: int = 32
    channels: int = 4

    def __post_init__(self) -> None:
        if self.rows < 1 or self.channels < 1:
            raise UsageError(f"a box has one row and one channel or more; got {self.rows} x {self.channels}")

    def tile(self, shape: Shape) -> Shape:
        return self.rows, self.channels, shape[2], shape[3]

    def why_not(self, shape: Shape, groups: int = 1) -> list[str]:
        reasons = super().why_not(shape, groups)
        if shape[0] % self.rows or shape[1] % self.channels:
            box = f"{self.rows} outputs x {self.channels} inputs"
            reasons.append(f"boxes of {box} do not divide {shape[0]} x {shape[1]}")
        if groups > 1 and shape[0] // groups % self.rows:
            reasons.append(f"a box of {self.rows} outputs would reach across groups of {shape[0] // groups} outputs")
        return reasons
