"""The grains of Mao et al. 2017, from single weights (0-D) to whole filters (3-D)."""

from dataclasses import dataclass

from campfire.structures.base import Grain


@dataclass(frozen=True)
class Fine(Grain):
    """Single weights compete over the whole layer (0-D).

        x . .   . . x   . x .
        . x .   . . .   x . x        x lives, . is zero
        . . .   x . .   . . .

    Keeps: the largest weights, wherever they are; the best accuracy at a given sparsity.
    Hardware: sparse matrix units and SCNN-like accelerators; on ordinary CPUs and GPUs the least regular, so the slowest.
    Source: Han et al. 2015; Mao et al. 2017 (0-D).
    """

    name = "fine"


@dataclass(frozen=True)
class Vector(Grain):
    """Rows of a kernel, W[k, c, r, :], live or die together (1-D), by their sum of |w|.

        x x x   . . .   . . .
        . . .   . . .   x x x
        . . .   x x x   x x x

    Keeps: whole rows; one index serves S weights.
    Hardware: row-stationary accelerators, SCNN (fewer output references); vector loads of a row.
    Source: Mao et al. 2017 (1-D).
    """

    name, grain = "vector", "s"


@dataclass(frozen=True)
class Kernel(Grain):
    """Whole R x S kernels, W[k, c, :, :], live or die together (2-D), by their sum of |w|.

        x x x   . . .   x x x
        x x x   . . .   x x x
        x x x   . . .   x x x

    Keeps: whole kernels; one index serves R*S weights. `ck` is the same grain ranked by the largest weight.
    Hardware: anything that convolves one channel at a time.
    Source: Mao et al. 2017 (2-D).
    """

    name, grain = "kernel", "r s"


@dataclass(frozen=True)
class Filter(Grain):
    """Whole filters, W[k, :, :, :], that is output channels, live or die together (3-D), by their sum of |w|.

        k=0:  x x x x      k=1:  . . . .      k=2:  x x x x      (each x a whole kernel)

    Keeps: whole output channels: what remains is a smaller dense layer.
    Hardware: any; the dense library runs it. Costs the most accuracy at a given sparsity.
    Source: Mao et al. 2017 (3-D); Li et al. 2017.
    """

    name, grain = "filter", "C c r s"
    drops_outputs = True


@dataclass(frozen=True)
class CK(Grain):
    """Campfire's CK: whole kernels over the C x K plane of a layer compete by their largest |w|.

                c=0     c=1     c=2
        k=0    x x x   . . .   x x x
               x x x   . . .   x x x
               x x x   . . .   x x x
        k=1    . . .   . . .   x x x
               . . .   . . .   x x x       floor(s K C) kernels go, exactly
               . . .   . . .   x x x

    Keeps: the kernels that hold the largest single weights. On a 1x1 layer: single weights.
    Hardware: a fixed number of kernels to convolve; on CPUs batch-lane kernels for 3x3 layers.
    Source: Campfire (Gamboa et al. 2020), Algorithm 1.
    """

    name, grain, reduce = "ck", "r s", "max"
