"""HRBP++: as HRBP, and every block keeps one subset of taps that all its kernels share."""

from dataclasses import dataclass

from campfire.errors import UsageError
from campfire.structures.base import Shape
from campfire.structures.hrbp import HRBP


@dataclass(frozen=True)
class HRBPTaps(HRBP):
    """HRBP whose blocks keep ``taps`` common taps, the best of each block: the same budget reaches more kernels.

        outputs 0 3, input 0       outputs 0 3, input 2       outputs 1 2, input 1
        x x .   x x .              . . .   . . .              . x .   . x .
        x x .   x x .              x x .   x x .              x x x   x x x       one subset for all kernels of a block
        . . .   . . .              x x .   x x .              . . .   . . .

    Keeps: while a block may have more than ``taps`` taps, the heaviest taps of all blocks, and ``taps`` at least in each;
    then the heaviest blocks. With ``channels`` above 1 inputs whose best taps agree make a block. Other options as `hrbp`,
    which it is in kernels of no more than ``taps`` taps: 1x1 and linear layers.
    Hardware: as hrbp; a block is rows x inputs x a subset of taps, dense in all three passes, in tiles of one tap.
    Source: HRBP++ (Ma et al., submission to ICLR 2023).
    """

    name = "hrbp++"
    channels: int = 1
    taps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.taps < 1:
            raise UsageError(f"a block keeps one tap or more; got taps={self.taps}")

    def remarks(self, shape: Shape, sparsity: float) -> list[str]:
        kernel, found = shape[2] * shape[3], super().remarks(shape, sparsity)
        if 1 < kernel <= self.taps:
            found.append(f"taps={self.taps}, and its kernels have {kernel}: whole kernels live, as with hrbp")
        return found

    def taps_of(self, shape: Shape) -> tuple[int, int]:
        return (shape[2] * shape[3], self.taps) if self.taps < shape[2] * shape[3] else (1, 1)
