"""CIFAR-10 and CIFAR-100 in both official layouts: Python pickles (read as data only) and binary files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from campfire.data.plain_pickle import read_names, read_pickle
from campfire.data.sets import MemorySet
from campfire.data.source import Source, contents
from campfire.errors import CampfireError, UsageError

_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Layout:
    """The files of one of the four; ``names`` holds the names of the classes."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: str  # key of the labels in a pickle; its fine ones for CIFAR-100
    label_bytes: int = 1  # before the pixels of a binary record; the last is the label that is used


_FIVE = tuple(f"data_batch_{i}" for i in range(1, 6))
LAYOUTS = (
    Layout("cifar-10-batches-py", _FIVE, "test_batch", "batches.meta", "labels"),
    Layout("cifar-100-python", ("train",), "test", "meta", "fine_labels"),
    Layout("cifar-10-batches-bin", tuple(f"{n}.bin" for n in _FIVE), "test_batch.bin", "batches.meta.txt", "labels"),
    Layout("cifar-100-binary", ("train.bin",), "test.bin", "fine_label_names.txt", "fine_labels", 2),
)


def _layout(home: Path) -> Layout | None:
    return next((one for one in LAYOUTS if (home / one.names).is_file() and (home / one.test).is_file()), None)


def detect(root: Path) -> Path | None:
    """Where this layout is: the folder itself, or the one of the official archive below it."""
    homes = (root, *(root / layout.folder for layout in LAYOUTS))
    return next((home for home in homes if _layout(home)), None)


def read(root: Path) -> Source:
    """Images uint8 [N, 3, 32, 32] with the classes in the official order; fine labels for CIFAR-100.

    Raises:
        UsageError: files are missing.
        CampfireError: a file is damaged, or asks for code to be run.
    """
    layout = _layout(root)
    if layout is None:
        raise UsageError(f"{root} has no labels and test images of CIFAR ({contents(root)}); unpack the archive again")
    if missing := [name for name in layout.train if not (root / name).is_file()]:
        raise UsageError(f"{root} is CIFAR without {', '.join(missing)} ({contents(root)}); unpack the archive again")
    classes = _names(root / layout.names, layout)
    train = [_batch(root / name, layout, len(classes)) for name in layout.train]
    joined = MemorySet(torch.cat([b.labels for b in train]), torch.cat([b.pixels for b in train]))
    return Source(root.resolve().name, classes, joined, _batch(root / layout.test, layout, len(classes)))


def _names(path: Path, layout: Layout) -> list[str]:
    if path.suffix == ".txt":
        return path.read_text(encoding="utf-8", errors="replace").split()
    return read_names(path, "label_names" if layout.labels == "labels" else "fine_label_names")


def _batch(path: Path, layout: Layout, classes: int) -> MemorySet:
    binary = path.suffix == ".bin"
    pixels, labels = _binary(path, layout) if binary else _pickled(path, layout)
    if len(labels) != len(pixels) or len(labels) == 0 or labels.min() < 0 or labels.max() >= classes:
        raise CampfireError(
            f"{path} holds {len(pixels)} images and {len(labels)} labels, wanted as many of both, and labels from 0 "
            f"to {classes - 1}: fetch the original file again"
        )
    return MemorySet(torch.from_numpy(labels), torch.from_numpy(pixels.reshape(-1, 3, 32, 32)))


def _pickled(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    found = read_pickle(path)
    pixels, labels = found.get("data"), found.get(layout.labels)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise CampfireError(f"{path} has no array 'data' of {_PIXELS} bytes an image: fetch the original file again")
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise CampfireError(f"{path} has no list {layout.labels!r} of whole numbers: fetch the original file again")
    return pixels.copy(), np.array(labels, dtype=np.int64)  # a copy, for bytes cannot be written to


def _binary(path: Path, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    raw, record = np.fromfile(path, np.uint8), layout.label_bytes + _PIXELS
    if len(raw) % record:
        raise CampfireError(
            f"{path} has {len(raw)} bytes, which is no multiple of {record}: it is truncated; fetch it again"
        )
    rows = raw.reshape(-1, record)
    return rows[:, layout.label_bytes :].copy(), rows[:, layout.label_bytes - 1].astype(np.int64)
