"""A few shared values a layer: Deep Compression's codebook."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from campfire.errors import UsageError
from campfire.quantise.base import Codes, Values
from campfire.quantise.kmeans import centroids_of, nearest


@dataclass(frozen=True)
class Codebook(Values):
    """A layer's living weights share 2^bits values, found by k-means; a code says which.

    A layer with no more distinct values than that keeps them exactly. Source: Han et al. 2016 (arXiv 1510.00149).
    """

    name = "codebook"
    bits: int = 4

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise UsageError(f"a codebook has 2 to 8 bits; got {self.bits}")

    def encode(self, values: Tensor, outputs: Tensor, count: int) -> Codes:
        given = values.numpy().astype(np.float64)
        table = centroids_of(given, 2**self.bits)
        codes = torch.from_numpy(nearest(given, table).astype(np.uint8))
        return Codes(codes, torch.from_numpy(table.astype(np.float32)), self.bits)

    def decode(self, codes: Codes, outputs: Tensor) -> Tensor:
        return codes.table[codes.codes.long()]
