"""Whole numbers of 8 bits, with a scale for every output channel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from campfire.quantise.base import Codes, Values

LARGEST = 127  # symmetric: -128 is not used, so that -w is as good as w


@dataclass(frozen=True)
class Int8(Values):
    """Each output channel's weights are whole multiples of its scale, largest |w| / 127.

    An output without living weights has scale 1. Source: Krishnamoorthi 2018 (arXiv 1806.08342), symmetric, per channel.
    """

    name = "int8"

    def encode(self, values: Tensor, outputs: Tensor, count: int) -> Codes:
        largest = torch.zeros(count).scatter_reduce(0, outputs, values.abs(), "amax")
        scales = torch.where(largest > 0, (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny), 1.0)
        codes = (values / scales[outputs]).round().clamp(-LARGEST, LARGEST).to(torch.int8)
        return Codes(codes, scales, 8)

    def decode(self, codes: Codes, outputs: Tensor) -> Tensor:
        return codes.codes.float() * codes.table[outputs]
