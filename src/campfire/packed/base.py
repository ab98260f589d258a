"""Packed: the survivors without their zeros, and the layouts that hold them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from campfire.errors import CheckpointError, UnknownName
from campfire.mask import Mask, view4

LAYOUTS: dict[str, "Layout"] = {}


@dataclass(frozen=True)
class Packed:
    """A weight [K, C, R, S] in a layout: its name, its dense shape, and named tensors (values and indices)."""

    layout: str
    shape: tuple[int, ...]
    parts: dict[str, Tensor]

    def dense(self) -> Tensor:
        """The weight with its zeros, [K, C, R, S]; exact.

        Raises:
            CheckpointError: the indices do not describe a weight of this shape.
        """
        layout = _layout(self.layout)
        if reasons := layout.why_invalid(self):
            raise CheckpointError(f"not a valid {self.layout!r} weight of shape {self.shape}: {'; '.join(reasons)}")
        return layout.unpack(self)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts in memory."""
        return sum(t.numel() * t.element_size() for t in self.parts.values())


class Layout(ABC):
    """How survivors are stored. A subclass with a ``name`` is registered by being defined."""

    name: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            LAYOUTS[cls.name] = cls()

    @abstractmethod
    def pack(self, weight: Tensor, mask: Mask) -> dict[str, Tensor]:
        """The parts of a weight [K, C, R, S]; dead weights are left out, whatever their value."""

    @abstractmethod
    def unpack(self, packed: Packed) -> Tensor:
        """The dense weight of parts that `why_invalid` accepts."""

    @abstractmethod
    def why_invalid(self, packed: Packed) -> list[str]:
        """Reasons why the parts describe no weight of this shape; [] when they do."""


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise UnknownName("layout", name, LAYOUTS)
    return LAYOUTS[name]


def pack(weight: Tensor, mask: Mask, layout: str = "csr") -> Packed:
    """The survivors of a weight.

    >>> import torch
    >>> keep = torch.tensor([[True, False], [False, True]]).view(2, 2, 1, 1)
    >>> packed = pack(torch.tensor([[5.0, 0.0], [0.0, 7.0]]), Mask(keep))
    >>> packed.parts["value"].tolist(), packed.dense().flatten().tolist()
    ([5.0, 7.0], [5.0, 0.0, 0.0, 7.0])
    """
    weight = view4(weight.detach())
    return Packed(layout, tuple(weight.shape), _layout(layout).pack(weight, mask))
