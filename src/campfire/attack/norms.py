"""How far an image may be moved: L-inf, the largest change of a value, and L2, the length of the change."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

TINY = 1e-12  # a gradient shorter than this has no direction


class Norm(ABC):
    """Steps and balls of one norm; all tensors are [N, C, H, W], and every image has its own ball."""

    name: ClassVar[str]

    @abstractmethod
    def direction(self, gradient: Tensor) -> Tensor:
        """The change of length 1 that raises the loss most, to first order."""

    @abstractmethod
    def project(self, change: Tensor, eps: float) -> Tensor:
        """The nearest change that is no longer than ``eps``."""

    @abstractmethod
    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        """A change of one image, [C, H, W], uniform in the ball of radius 1."""


class Linf(Norm):
    """Every value may change by eps."""

    name = "linf"

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient.sign()

    def project(self, change: Tensor, eps: float) -> Tensor:
        return change.clamp(-eps, eps)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1


class L2(Norm):
    """The root of the summed squares of an image's changes is at most eps."""

    name = "l2"

    def direction(self, gradient: Tensor) -> Tensor:
        return gradient * (1 / _length(gradient))

    def project(self, change: Tensor, eps: float) -> Tensor:
        return change * (eps / _length(change)).clamp(max=1)

    def draw(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        normal = torch.randn(shape, generator=generator)
        radius = torch.rand((), generator=generator) ** (1 / normal.numel())
        return normal * (radius / normal.norm())


def _length(x: Tensor) -> Tensor:
    """Of each image, [N, 1, 1, 1], at least `TINY`."""
    return x.flatten(1).norm(dim=1).clamp(min=TINY).view(-1, 1, 1, 1)


NORMS: dict[str, Norm] = {norm.name: norm for norm in (Linf(), L2())}
