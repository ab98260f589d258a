"""Scores: (weight, grad) -> importance >= 0 of the same shape (floor 1: torch only).

The gradient is the one of the last backward pass, or None where there was none.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from campfire.errors import UnknownName, UsageError
from campfire.native import masks

Score = Callable[[Tensor, Tensor | None], Tensor]


def magnitude(weight: Tensor, grad: Tensor | None = None) -> Tensor:
    """|w|: what Campfire, Han et al. and Mao et al. prune by."""
    found = masks.magnitudes(weight)
    return weight.abs() if found is None else found


def taylor(weight: Tensor, grad: Tensor | None = None) -> Tensor:
    """(w g)^2: the squared first-order change of the loss when w goes to 0 (Molchanov et al.; ClickTrain).

    Raises:
        UsageError: there is no gradient yet.
    """
    if grad is None:
        raise UsageError("the taylor score needs a gradient: run backward() before masks are updated")
    return (weight * grad).float().square()


@dataclass(frozen=True)
class Random:
    """Uniform noise that depends on the seed, the layer's name and the shape alone, drawn on the CPU.

    So a weight that ranks low once ranks low always, on every rank, and after a resume.
    """

    seed: int = 0
    layer: str = ""

    def for_layer(self, name: str) -> "Random":
        """The same score for the layer called ``name``."""
        return replace(self, layer=name)

    def __call__(self, weight: Tensor, grad: Tensor | None = None) -> Tensor:
        seed = zlib.crc32(f"{self.seed}/{self.layer}".encode())
        return torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight.device)


KNOWN = ("magnitude", "taylor", "random")


def named(name: str, seed: int = 0) -> Score:
    """A score by name.

    >>> named("magnitude")(torch.tensor([-2.0, 1.0]), None)
    tensor([2., 1.])
    """
    if name not in KNOWN:
        raise UnknownName("score", name, KNOWN)
    return {"magnitude": magnitude, "taylor": taylor}.get(name) or Random(seed)
