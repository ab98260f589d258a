"""Mask: which weights live, and what was decided once while choosing them (floor 1: torch only)."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from campfire.errors import CheckpointError


@dataclass(frozen=True)
class Mask:
    """Which weights live.

    >>> Mask(torch.tensor([1, 0, 0, 1], dtype=torch.bool).view(2, 2, 1, 1)).sparsity
    0.5
    """

    keep: Tensor  # bool [K, C, R, S]
    plan: dict[str, Tensor] = field(default_factory=dict)  # row order, pattern book, ...

    @property
    def sparsity(self) -> float:
        """The true fraction of zeros."""
        return 1 - int(self.keep.count_nonzero()) / self.keep.numel()

    def checksum(self) -> str:
        """A short hash that is equal on every rank and machine exactly when the masks are equal."""
        digest = hashlib.sha256(str(tuple(self.keep.shape)).encode())
        digest.update(pack_bits(self.keep).numpy().tobytes())
        for name in sorted(self.plan):
            digest.update(name.encode() + self.plan[name].cpu().numpy().tobytes())
        return digest.hexdigest()[:16]


def view4(weight: Tensor) -> Tensor:
    """The weight as [K, C, R, S]: a linear weight [K, C] is a 1x1 convolution.

    >>> tuple(view4(torch.zeros(10, 64)).shape)
    (10, 64, 1, 1)
    """
    return weight if weight.dim() == 4 else weight[:, :, None, None]


def pack_bits(keep: Tensor) -> Tensor:
    """A bool tensor as uint8, eight weights a byte, in row-major order, the first weight in the highest bit."""
    return torch.from_numpy(np.packbits(keep.detach().cpu().numpy().reshape(-1)))


def unpack_bits(bits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The bool tensor of ``shape`` that `pack_bits` packed.

    Raises:
        CheckpointError: the number of bytes does not belong to this shape.
    """
    size = int(np.prod(shape))
    if bits.dtype != torch.uint8 or bits.dim() != 1 or bits.numel() != -(-size // 8):
        raise CheckpointError(
            f"a bit mask for shape {tuple(shape)} is {-(-size // 8)} uint8 values; "
            f"got {tuple(bits.shape)} of {bits.dtype}"
        )
    return torch.from_numpy(np.unpackbits(bits.cpu().numpy(), count=size).astype(bool)).reshape(shape)
