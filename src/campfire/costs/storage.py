"""What the survivors weigh: the storage model of Mao et al. 2017, and the bytes of a bit mask and values.

fine      v i v i v i      every weight brings an index: 8 + 4 bits
vector    v v v i v v v i  an index for S weights:       8 + 4/S bits a weight
kernel    v v v v v ... i  an index for R*S weights:     8 + 4/(R*S) bits a weight
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from campfire.costs.grains import GRAINS, unit_size, whole_grain

VALUE_BITS, INDEX_BITS = 8, 4  # of Mao et al.: values of 8 bits, indices relative to the living unit before


def storage_bits(living: float, unit: int = 1, value_bits: int = VALUE_BITS, index_bits: int = INDEX_BITS) -> float:
    """Bits of ``living`` weights with an index for every ``unit`` of them; the dense layer has ``value_bits`` a weight.

    As in the paper, gaps beyond the index's range and codebooks are not counted.

    >>> [round(storage_bits(100, unit) / (100 * 8), 4) for unit in (1, 3, 9)]  # 1.5, 7/6, 19/18
    [1.5, 1.1667, 1.0556]
    """
    return living * (value_bits + index_bits / unit)


def mao_bits(keep: Tensor, grain: str | None = None) -> float:
    """`storage_bits` of a mask [K, C, R, S] by its own grain, or a given one; a dense layer needs no index."""
    grain, shape = grain or whole_grain(keep), tuple(keep.shape)
    living = int(keep.count_nonzero())
    return living * VALUE_BITS if grain == "dense" else storage_bits(living, unit_size(grain, shape))


@dataclass(frozen=True)
class Stored:
    """What a layer weighs in both models: ``grain`` as in `whole_grain`, ``file_bytes`` of mask and values."""

    grain: str
    mao_bits: float
    file_bytes: float

    @classmethod
    def of(cls, keep: Tensor, value_bits: int, mask_bytes: Callable[[Tensor], int], chosen: bool = True) -> "Stored":
        """Under a mask [K, C, R, S], values of ``value_bits`` in the file.

        A mask that was ``chosen`` is stored whatever it costs. One that is only where zeros happen to be is not stored
        where the dense layer is smaller; in Mao's model that makes the grain dense, so that a stray zero is no structure.
        """
        grain, living = whole_grain(keep), int(keep.count_nonzero())
        bits, held = mao_bits(keep, grain), -(-living * value_bits // 8)
        indexed = held + (0 if grain == "dense" else mask_bytes(keep))
        if chosen:
            return cls(grain, bits, indexed)
        dense = keep.numel() * VALUE_BITS
        return cls(
            "dense" if dense <= bits else grain, min(bits, dense), min(indexed, -(-keep.numel() * value_bits // 8))
        )


def mask_bytes(keep: Tensor) -> int:
    """Bytes of a bit for every unit of the grain of a mask [K, C, R, S]."""
    grain = whole_grain(keep)
    return 0 if grain == "dense" else -(-math.prod(tuple(keep.shape)[: GRAINS[grain]]) // 8)


def bit_mask_bytes(keep: Tensor, value_bits: int = 32) -> int:
    """Bytes of a mask [K, C, R, S], as `mask_bytes`, and its living values.

    >>> import torch
    >>> keep = torch.tensor([True, False, False, True]).view(2, 2, 1, 1).expand(2, 2, 3, 3)
    >>> bit_mask_bytes(keep), bit_mask_bytes(keep, value_bits=4)  # a byte for four kernels, and 18 values
    (73, 10)
    """
    return mask_bytes(keep) + -(-int(keep.count_nonzero()) * value_bits // 8)
