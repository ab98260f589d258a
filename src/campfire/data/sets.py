"""What a source of images is, once found: a training and a test set, in memory or as a list of files."""

import functools
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, Self

import numpy as np
import torch
from torch import Tensor

from campfire.data.keyed import permutation
from campfire.errors import UsageError

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class ImageSet(ABC):
    """Images with labels, int64 [N], each the index of a class."""

    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def take(self, index: np.ndarray) -> Self:
        """The images at these positions."""

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """All positions, int64 [N], in an order of their own for each (seed, epoch)."""
        return permutation(len(self), seed=seed, epoch=epoch)

    @abstractmethod
    def _identity(self) -> Iterable[bytes | memoryview]:
        """What makes these images, and not others."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash that tells other data from the same data: of labels, and pixels or names."""
        digest = hashlib.sha256(self.labels.cpu().numpy().data)
        for part in self._identity():
            digest.update(part)
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class MemorySet(ImageSet):
    """Decoded images: uint8 [N, C, H, W].

    >>> images = MemorySet(torch.tensor([0, 1]), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    >>> len(images), len(images.take(np.array([1])))
    (2, 1)
    """

    pixels: Tensor
    _copies: dict[torch.device, "MemorySet"] = field(default_factory=dict, repr=False)

    def take(self, index: np.ndarray) -> "MemorySet":
        where = torch.from_numpy(index)
        return MemorySet(self.labels[where], self.pixels[where])

    def on(self, device: torch.device) -> "MemorySet":
        """The same images on a device; copied there once, so that batches need not travel."""
        if self.pixels.device == device:
            return self
        if device not in self._copies:
            self._copies[device] = MemorySet(self.labels.to(device), self.pixels.to(device))
        return self._copies[device]

    def _identity(self) -> Iterable[bytes | memoryview]:
        return str(tuple(self.pixels.shape)).encode(), self.pixels.cpu().contiguous().numpy().data


@dataclass(frozen=True, eq=False)
class EncodedSet(ImageSet):
    """Images as files hold them, decoded when they are wanted; ``root`` says where they are from."""

    root: str

    @abstractmethod
    def open(self, index: int) -> str | BinaryIO:
        """What Pillow opens: a path, or the bytes of a file."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Its name, for errors."""


@dataclass(frozen=True, eq=False)
class FileSet(EncodedSet):
    """Image files below a folder; ``names`` are relative to it, bytes [N].

    Worker processes share one array, where touching the reference counts of a list of names would copy it into each.
    """

    names: np.ndarray

    @classmethod
    def of(cls, root: str | os.PathLike[str], names: Sequence[str], labels: Sequence[int]) -> "FileSet":
        """From names and the class of each."""
        raw = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)
        return cls(torch.tensor(labels, dtype=torch.int64), os.fspath(root), raw)

    def open(self, index: int) -> str:
        """The path of the image."""
        return os.path.join(self.root, os.fsdecode(self.names[index]))

    def where(self, index: int) -> str:
        return self.open(index)

    def take(self, index: np.ndarray) -> "FileSet":
        return FileSet(self.labels[torch.from_numpy(index)], self.root, self.names[index])

    def _identity(self) -> Iterable[bytes | memoryview]:
        yield b"\n".join(self.names.tolist())  # to read the files would take as long as an epoch


@dataclass(frozen=True)
class ImageData:
    """Training and test images of the same classes, and how they reach a network; made by `load`.

    Attributes:
        image_size: height and width of what the network sees, in pixels.
        channels: 1 (grey) or 3 (red, green, blue).
        mean, std: per channel, of values scaled to [0, 1]; batches are ``(x - mean) / std``.
        flip: whether training mirrors images left to right, half of the time.
        pad: small images are shifted by up to this many pixels in training, over black; None for large ones, of which
            training takes random parts (8 to 100 % of the area, aspect 3/4 to 4/3) and the test the centre.
    """

    name: str
    classes: list[str]
    train: ImageSet
    test: ImageSet
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False
    pad: int | None = 4

    def part(self, split: str) -> ImageSet:
        """The set called ``"train"`` or ``"test"``.

        Raises:
            UsageError: any other name.
        """
        if split not in ("train", "test"):
            raise UsageError(f"the images are split into 'train' and 'test'; got {split!r}")
        return self.train if split == "train" else self.test

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of classes, labels and pixels (of streamed images: their names), to notice a resume on other data."""
        facts = (self.classes, self.image_size, self.channels, self.train.fingerprint, self.test.fingerprint)
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]

    @functools.cached_property
    def labelling(self) -> str:
        """A hash of classes and labels: the same wherever, and by whichever library, the images are decoded."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for part in (self.train, self.test):
            digest.update(part.labels.cpu().numpy().data)
        return digest.hexdigest()[:8]

    def __str__(self) -> str:
        where = "in memory" if isinstance(self.train, MemorySet) else "streamed from files"
        return (
            f"{self.name}: {len(self.train):,} training and {len(self.test):,} test images in {len(self.classes)} "
            f"classes, {self.channels} x {self.image_size} x {self.image_size}, {where}"
        )


def mean_and_std(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, of uint8 [N, C, H, W] scaled to [0, 1].

    Computed from whole-number sums, so that it does not depend on the number of threads. A constant channel has
    deviation 1, so that it can be divided by.

    >>> mean_and_std(torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2))
    ((0.5,), (0.5,))
    """
    sums = squares = torch.zeros(pixels.shape[1], dtype=torch.float64)
    for chunk in pixels.split(512):
        values = chunk.double()
        sums = sums + values.sum((0, 2, 3))
        squares = squares + values.square().sum((0, 2, 3))
    count = pixels.numel() // pixels.shape[1]
    totals = [(int(s), int(q)) for s, q in zip(sums.tolist(), squares.tolist(), strict=True)]
    mean = tuple(s / count / 255 for s, _ in totals)
    std = tuple((q * count - s * s) ** 0.5 / count / 255 or 1.0 for s, q in totals)
    return mean, std
