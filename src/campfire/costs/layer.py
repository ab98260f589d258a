"""The costs of one convolution or linear layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from campfire.costs.activity import Activity
from campfire.costs.balance import imbalance, living_work
from campfire.costs.energy import compressed_bytes
from campfire.costs.grains import GRAINS, unit_size
from campfire.costs.macs import is_linear, packed_of
from campfire.costs.storage import Stored


@dataclass(frozen=True)
class Counting:
    """How costs are counted.

    ``value_bits`` of a stored weight and of an activation; ``array``: processing elements; ``mask_bytes``: of a mask in a
    file.
    """

    value_bits: int
    array: int
    mask_bytes: Callable[[Tensor], int]


@dataclass(frozen=True)
class LayerCost:
    """One layer: what it holds, and what it does for one image. Where no images were given, ``activity`` is None."""

    name: str
    shape: tuple[int, ...]  # of the mask, [K, C / groups, R, S]
    linear: bool
    grain: str  # the largest that is whole, or dense: so it is stored
    biases: int
    living: int
    units: dict[str, tuple[int, int]]  # by grain: all, and those in which something lives
    macs: int  # dense
    sparse_macs: int
    mao_bits: float
    file_bytes: float  # mask and values
    value_bits: int
    work: float  # products where there is activity, else sparse MACs
    imbalance: dict[str, float]  # by what is dealt to the elements: outputs, inputs
    activity: Activity | None = None

    @property
    def weights(self) -> int:
        return math.prod(self.shape)

    @property
    def dense_bytes(self) -> float:
        return self.weights * self.value_bits / 8

    @property
    def moved_bytes(self) -> float:
        """To and from memory for one image: weights as in the file, inputs without zeros if that is less, outputs."""
        x, bits = self.activity, self.value_bits
        return 0.0 if x is None else self.file_bytes + compressed_bytes(x.inputs, x.active, bits) + x.outputs * bits / 8

    @classmethod
    def of(
        cls,
        name: str,
        module: nn.Module,
        keep: Tensor,
        macs: tuple[int, int],
        live: Activity | None,
        how: Counting,
        chosen: bool = True,
    ) -> "LayerCost":
        """The costs of a layer under a mask [K, C / groups, R, S]; ``macs`` are dense and sparse ones.

        ``chosen``: the mask was given, and is not only where zeros happen to be (`Stored.of`).
        """
        bias, stored = getattr(module, "bias", None), Stored.of(keep, how.value_bits, how.mask_bytes, chosen)
        by_output, by_input = living_work(module, keep) if live is None else live.work
        return cls(
            name=name,
            shape=tuple(keep.shape),
            linear=is_linear(module),
            grain=stored.grain,
            biases=0 if bias is None else bias.numel(),
            living=int(keep.count_nonzero()),
            units={g: _units(keep, g) for g in GRAINS},
            macs=macs[0],
            sparse_macs=macs[1],
            mao_bits=stored.mao_bits,
            file_bytes=stored.file_bytes,
            value_bits=how.value_bits,
            work=macs[1] if live is None else live.references.products,
            imbalance={"outputs": imbalance(by_output, how.array), "inputs": imbalance(by_input, how.array)},
            activity=live,
        )


def _units(keep: Tensor, grain: str) -> tuple[int, int]:
    units = keep.reshape(*keep.shape[: GRAINS[grain]], -1).any(-1)
    return keep.numel() // unit_size(grain, tuple(keep.shape)), int(units.count_nonzero())


def is_watched(module: nn.Module) -> bool:
    """Whether its activations can be counted: 2-D convolutions and linear layers."""
    return isinstance(module, nn.Conv2d | nn.Linear) or packed_of(module) is not None


def own_mask(module: nn.Module) -> Tensor:
    """What is not zero in its weight, [K, C, R, S]; of other than 2-D layers the taps are one row."""
    if packed_of(module) is not None:
        return module.mask.keep  # pyright: ignore[reportReturnType, reportAttributeAccessIssue]
    weight = module.weight
    assert isinstance(weight, Tensor)
    return as_mask(weight.detach() != 0)


def as_mask(keep: Tensor) -> Tensor:
    """A mask of any layer as [K, C, R, S]."""
    return (keep if keep.dim() == 4 else keep.reshape(*keep.shape[:2], 1, -1)).to(torch.bool)
