"""Images made up from a seed, which a network can learn to tell apart."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from campfire.data.keyed import bits
from campfire.data.sets import MemorySet
from campfire.data.source import Source
from campfire.errors import UsageError

_CONTRAST = 0.25  # of the pattern; the rest is noise
_COARSE = 4  # the pattern is this many pixels wide before it is enlarged


@dataclass(frozen=True)
class Synthetic:
    """``synthetic:classes=10,images=2000,channels=3,size=32,seed=0``: noise over a smooth pattern of each class.

    A quarter as many images again are there to test on.
    """

    classes: int = 10
    images: int = 2000
    channels: int = 3
    size: int = 32
    seed: int = 0

    def read(self) -> Source:
        """The images, uint8 [N, channels, size, size].

        Raises:
            UsageError: an option out of its range.
        """
        if self.classes < 2 or self.images < self.classes or self.channels not in (1, 3) or self.size < _COARSE:
            raise UsageError(
                f"synthetic wants classes >= 2, images >= classes, channels 1 or 3, size >= {_COARSE}; got {self}"
            )
        patterns = self._patterns()
        names = [f"class{label}" for label in range(self.classes)]
        test = max(self.classes, self.images // 4)
        return Source("synthetic", names, self._make(patterns, 0, self.images), self._make(patterns, 1, test), False)

    def _noise(self, count: int, *key: int) -> Tensor:
        """``count`` random bytes."""
        words = bits(np.arange(-(-count // 8)), seed=self.seed, epoch=key[0], draw=key[1])
        return torch.from_numpy(words.astype("<u8").view(np.uint8)[:count])

    def _patterns(self) -> Tensor:
        """Float [classes, channels, size, size], between 0 and 255."""
        shape = (self.classes, self.channels, _COARSE, _COARSE)
        coarse = self._noise(int(np.prod(shape)), 2, 0).view(shape).float()
        return F.interpolate(coarse, size=(self.size, self.size), mode="bilinear")

    def _make(self, patterns: Tensor, part: int, count: int) -> MemorySet:
        labels = torch.arange(count) % self.classes
        pixels = torch.empty(count, *patterns.shape[1:], dtype=torch.uint8)
        for i in range(count):
            noise = self._noise(patterns[0].numel(), part, i).view_as(patterns[0])
            pixels[i] = (_CONTRAST * patterns[labels[i]] + (1 - _CONTRAST) * noise).round()
        return MemorySet(labels, pixels)
