"""Values: how surviving weights are written in few bits; and Codes, the result."""

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from campfire.errors import CampfireError, DoesNotFit
from campfire.mask import view4
from campfire.spelling import spell

REGISTRY: dict[str, type["Values"]] = {}


@dataclasses.dataclass(frozen=True)
class Codes:
    """Values as small integers, and the table that says what they stand for."""

    codes: Tensor  # int8 or uint8 [n]
    table: Tensor  # float32: a scale an output, or the centroids
    bits: int  # of a code

    @property
    def nbytes(self) -> int:
        """Bytes of codes, packed bit by bit, and table."""
        return -(-self.codes.numel() * self.bits // 8) + self.table.numel() * self.table.element_size()


@dataclasses.dataclass(frozen=True)
class Values(ABC):
    """A way to write values. A subclass with a ``name`` is registered by being defined."""

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            REGISTRY[cls.name] = cls

    def __str__(self) -> str:
        return spell(self.name, self)

    @abstractmethod
    def encode(self, values: Tensor, outputs: Tensor, count: int) -> Codes:
        """Finite float values [n], each of one of ``count`` outputs (int64 [n]), as codes."""

    @abstractmethod
    def decode(self, codes: Codes, outputs: Tensor) -> Tensor:
        """The values that codes stand for, float32 [n]."""


def encode(values: Values, weight: Tensor, keep: Tensor) -> Codes:
    """The living weights of a layer, in row-major order, as codes.

    Args:
        weight: [K, C, R, S] or [K, C].
        keep: bool, as many entries as the weight.

    Raises:
        DoesNotFit: the mask is of another size.
        CampfireError: a living weight is not finite.
    """
    living, outputs = _living(weight.detach(), keep)
    if bad := int((~torch.isfinite(living)).sum()):
        raise CampfireError(f"only finite weights can be written as {values}; {bad} of {living.numel()} are not finite")
    return values.encode(living.float().cpu(), outputs.cpu(), len(weight))


def decode(values: Values, codes: Codes, keep: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The weight of ``shape`` that codes stand for, float32, zero where ``keep`` is not set; raises as `encode` does."""
    weight = torch.zeros(shape)
    living, outputs = _living(weight, keep.cpu())
    if living.numel() != codes.codes.numel():
        raise DoesNotFit(f"{codes.codes.numel()} codes", "this mask", [f"{living.numel()} of its weights live"])
    weight.view(-1)[keep.cpu().reshape(-1)] = values.decode(codes, outputs)
    return weight


def _living(weight: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    if keep.dtype != torch.bool or keep.numel() != weight.numel():
        got = f"{keep.dtype} {list(keep.shape)}"
        raise DoesNotFit(
            "a mask", f"a weight {list(weight.shape)}", [f"it is bool and of the weight's size; got {got}"]
        )
    keep = keep.reshape(view4(weight).shape)
    return view4(weight)[keep], keep.nonzero()[:, 0]
