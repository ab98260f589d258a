"""Packed: the survivors without their zeros, and what every layout of them does."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from campfire.errors import CheckpointError, DoesNotFit, UnknownName
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
    """How survivors are stored: index parts that follow from the mask, and the place of each value in the weight.

    A subclass with a ``name`` is registered by being defined. It answers for its indices; values are handled here.
    """

    name: ClassVar[str] = ""
    parts: ClassVar[dict[str, tuple[int, tuple[torch.dtype, ...]]]] = {}  # of each index part: axes, dtypes
    options: ClassVar[tuple[str, ...]] = ()  # the parts that may be chosen; all others follow from the mask

    def why_not(self, mask: Mask, **options: Any) -> list[str]:
        """Reasons why this mask cannot be held, or would not pay; [] when it can."""
        return []

    @abstractmethod
    def indices(self, mask: Mask, **options: Any) -> dict[str, Tensor]:
        """The index parts of a mask that `why_not` accepts."""

    @abstractmethod
    def value_shape(self, packed: Packed) -> tuple[int, ...]:
        """The shape of ``value``, told by the indices."""

    @abstractmethod
    def positions(self, packed: Packed) -> Tensor:
        """Where each value lies in the weight: int64, flat and row-major, in value order.

        Made anew at each call: kept, it would take twice the memory of fp32 values.
        """

    @abstractmethod
    def why_bad_indices(self, packed: Packed) -> list[str]:
        """Reasons why index parts of the right dtypes and axes describe no weight of this shape; [] when they do."""

    def pack(self, weight: Tensor, mask: Mask, **options: Any) -> dict[str, Tensor]:
        """The parts of a weight [K, C, R, S]; dead weights are left out, whatever their value.

        Raises:
            DoesNotFit: the layout cannot hold this mask, with every reason.
        """
        shape = tuple(view4(weight).shape)
        if reasons := self._why_not_pack(shape, mask, options):
            raise DoesNotFit(f"layout {self.name!r}", f"this mask of a weight of shape {shape}", reasons)
        parts = {name: part.to(weight.device) for name, part in self.indices(mask, **options).items()}
        return {**parts, "value": self.gather(Packed(self.name, shape, parts), weight.detach())}

    def _why_not_pack(self, shape: tuple[int, ...], mask: Mask, options: dict[str, Any]) -> list[str]:
        if unknown := sorted(set(options) - set(self.options)):
            return [f"its options are {', '.join(self.options) or 'none'}; got {', '.join(unknown)}"]
        if tuple(mask.keep.shape) != shape or mask.keep.dtype != torch.bool:
            return [f"a mask is bool {shape}; got {mask.keep.dtype} {tuple(mask.keep.shape)}"]
        return _why_bad_shape(shape) or self.why_not(mask, **options)

    def options_of(self, packed: Packed) -> dict[str, Tensor]:
        """The options that pack another weight, or a changed mask, the same way."""
        return {name: packed.parts[name] for name in self.options}

    def gather(self, packed: Packed, dense: Tensor) -> Tensor:
        """The values of any tensor of the weight's shape (its gradient, a momentum), in the shape of ``value``.

        Differentiable; any dtype.

        Raises:
            DoesNotFit: the tensor is not of the weight's shape.
        """
        _require(dense, packed.shape if dense.dim() != 2 else _flat(packed.shape), "the weight")
        return dense.reshape(-1).index_select(0, self.positions(packed)).view(self.value_shape(packed))

    def scatter(self, packed: Packed, value: Tensor) -> Tensor:
        """The dense tensor [K, C, R, S] with these values instead of the packed ones, zero elsewhere.

        Differentiable; any dtype; the inverse of `gather`.

        Raises:
            DoesNotFit: the tensor is not of the values' shape.
        """
        _require(value, self.value_shape(packed), "the values")
        dense = value.new_zeros(math.prod(packed.shape))
        return dense.index_put((self.positions(packed),), value.reshape(-1)).view(packed.shape)

    def unpack(self, packed: Packed) -> Tensor:
        """The dense weight of parts that `why_invalid` accepts."""
        return self.scatter(packed, packed.parts["value"])

    def why_invalid(self, packed: Packed) -> list[str]:
        """Reasons why the parts describe no weight of this shape; [] when they do. Values may be anything, NaN too.

        Nothing is allocated from a size or an index before it is checked.
        """
        return (
            _why_bad_shape(packed.shape)
            or self._why_bad_parts(packed.parts)
            or self.why_bad_indices(packed)
            or self._why_bad_value(packed)
        )

    def _why_bad_parts(self, parts: dict[str, Tensor]) -> list[str]:
        wanted = sorted([*self.parts, "value"])
        if sorted(parts) != wanted:
            return [f"{self.name} has the parts {', '.join(wanted)}; got {', '.join(sorted(parts)) or 'none'}"]
        bad = []
        for name, (axes, dtypes) in self.parts.items():
            part = parts[name]
            if part.dtype not in dtypes or part.dim() != axes or part.layout != torch.strided:
                names = " or ".join(map(_short, dtypes))
                bad.append(f"{name} is {names} with {axes} axes; got {_short(part.dtype)} {tuple(part.shape)}")
        if not parts["value"].is_floating_point() or parts["value"].layout != torch.strided:
            bad.append(f"value is floating point; got {_short(parts['value'].dtype)}")
        if len(devices := {str(part.device) for part in parts.values()}) > 1:
            bad.append(f"the parts lie on one device; got {', '.join(sorted(devices))}")
        return bad

    def _why_bad_value(self, packed: Packed) -> list[str]:
        wanted, got = self.value_shape(packed), tuple(packed.parts["value"].shape)
        return [] if got == wanted else [f"the indices want a value of shape {wanted}; got {got}"]

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        if cls.name:
            LAYOUTS[cls.name] = cls()


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A linear layer's own shape."""
    return shape[:2] if shape[2:] == (1, 1) else shape


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _require(given: Tensor, shape: tuple[int, ...], what: str) -> None:
    if tuple(given.shape) != shape:
        raise DoesNotFit(f"a tensor of shape {tuple(given.shape)}", what, [f"their shape is {shape}"])


def _why_bad_shape(shape: tuple[int, ...]) -> list[str]:
    if len(shape) == 4 and all(isinstance(n, int) and n > 0 for n in shape) and math.prod(shape) < 2**31:
        return []
    return [f"a weight is [K, C, R, S], fewer than 2^31 in all; got {tuple(shape)}"]


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise UnknownName("layout", name, LAYOUTS)
    return LAYOUTS[name]


def pack(weight: Tensor, mask: Mask, layout: str = "csr", **options: Any) -> Packed:
    """The survivors of a weight [K, C, R, S], or [K, C] of a linear layer, in a layout.

    >>> import torch
    >>> keep = torch.tensor([[True, False], [False, True]]).view(2, 2, 1, 1)
    >>> packed = pack(torch.tensor([[5.0, 0.0], [0.0, 7.0]]), Mask(keep))
    >>> packed.parts["value"].tolist(), packed.dense().flatten().tolist()
    ([5.0, 7.0], [5.0, 0.0, 0.0, 7.0])

    Raises:
        UnknownName: no layout has this name.
        DoesNotFit: the layout cannot hold this mask, with every reason.
    """
    return Packed(layout, tuple(view4(weight).shape), _layout(layout).pack(weight, mask, **options))
