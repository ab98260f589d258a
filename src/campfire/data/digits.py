"""The 1,797 handwritten digits of the UCI repository, which ship with the package (``uci_digits/README.txt``)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from campfire.data.idx import read_idx
from campfire.data.sets import MemorySet
from campfire.data.source import Source
from campfire.data.splitting import stratified

_HOME = Path(__file__).parent / "uci_digits"


@dataclass(frozen=True)
class Digits:
    """``digits``: real digits, 1,437 to train on and 360 to test on, 8x8 enlarged to 32x32 grey pixels.

    A fifth of every class is held out, always the same digits; the people who wrote them are in both parts.
    """

    def read(self) -> Source:
        """The images, uint8 [N, 1, 32, 32]."""
        small = read_idx(_HOME / "images-idx3-ubyte.gz", 3)
        labels = read_idx(_HOME / "labels-idx1-ubyte.gz", 1).astype(np.int64)
        everything = MemorySet(torch.from_numpy(labels), torch.from_numpy(enlarge(small)[:, None]))
        train, test = stratified(labels, 0.2)
        return Source("digits", [str(d) for d in range(10)], everything.take(train), everything.take(test))


def enlarge(small: np.ndarray) -> np.ndarray:
    """Values 0 ... 16, [N, 8, 8], to 0 ... 255, [N, 32, 32], bilinearly, in whole numbers: the same bits everywhere.

    >>> enlarge(np.full((1, 8, 8), 16)).min()
    np.uint8(255)
    """
    at = 2 * np.arange(32) - 3  # eighths of a small pixel, from the centre of the first one
    below, right = at // 8, at % 8
    weights = np.zeros((32, 8), np.int64)
    for source, weight in ((below, 8 - right), (below + 1, right)):
        np.add.at(weights, (np.arange(32), source.clip(0, 7)), weight)
    sums = weights @ small.astype(np.int64) @ weights.T  # of values 0 ... 16, with weights that sum to 64
    return ((sums * 255 + 512) // 1024).astype(np.uint8)
