"""N:M sparsity: n of every m consecutive input channels survive."""

from dataclasses import dataclass

from campfire.errors import UsageError
from campfire.structures.base import Grain, Shape


@dataclass(frozen=True)
class NM(Grain):
    """n:m: of every m consecutive input channels, at each output and tap, the same number survives.

        c:  0 1 2 3 | 4 5 6 7
            x . . x | . x x .        2:4

    Keeps: the largest |w| of each group of m. The number kept follows the sparsity, m - floor(s m); with ``n`` given it
    never falls below n, so that ``2:4`` at any sparsity of 0.5 or more is 2:4.
    Hardware: sparse tensor cores for 2:4 (NVIDIA Ampere and later); balanced work everywhere.
    Source: Mishra et al. 2021 (2:4); Zhou et al. 2021 (n:m).
    """

    name, budget = "nm", "K C R r S s"
    n: int = 1
    m: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.n < self.m:
            raise UsageError(f"n:m needs 1 <= n < m; got {self.n}:{self.m}")

    def why_not(self, shape: Shape, groups: int = 1) -> list[str]:
        whole = [] if shape[1] % self.m == 0 else [f"{shape[1]} input channels are not a multiple of m={self.m}"]
        return super().why_not(shape, groups) + whole

    def tile(self, shape: Shape) -> Shape:
        return 1, self.m, shape[2], shape[3]

    def count(self, shape: Shape, sparsity: float) -> int:
        return max(super().count(shape, sparsity), self.n * (shape[0] * shape[1] // self.m) * shape[2] * shape[3])
