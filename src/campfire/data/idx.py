"""IDX files, the format of MNIST and its family (Fashion-MNIST, KMNIST, EMNIST), plain or gzipped.

A header of big-endian numbers, two zero bytes, the type (8: bytes), the number of axes, and the length of each axis;
then the values, the last axis running fastest (http://yann.lecun.com/exdb/mnist).
"""

import gzip
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np
import torch

from campfire.data.sets import MemorySet
from campfire.data.source import Source, contents, some
from campfire.errors import CampfireError, UsageError

_IMAGES = re.compile(r"(?P<stem>.*?)(?P<part>train|t10k|test)-images(?P<dot>[-.])idx3-ubyte(?P<gz>\.gz)?")


def detect(root: Path) -> Path | None:
    """Where this layout is: the folder itself or ``raw/`` below it."""
    return next((home for home in (root, root / "raw") if home.is_dir() and _pairs(home)), None)


def read(root: Path) -> Source:
    """Images uint8 [N, 1, H, W]; classes are the numbers that label the training images.

    Raises:
        UsageError: files are missing, or several data sets share the folder.
        CampfireError: a file is damaged.
    """
    found = _pairs(root)
    parts = [[pair for kind, pair in found if (kind == "train") == train] for train in (True, False)]
    if [len(part) for part in parts] != [1, 1]:
        names = some([images.name for _, (images, _) in found])
        raise UsageError(
            f"{root} should hold the images of one training set and one test set as IDX files; found {names} "
            f"({contents(root)}); add what is missing, or move other data sets elsewhere"
        )
    (train, values), (test, others) = (_read_pair(*part[0]) for part in parts)
    classes = np.unique(values)
    if (unknown := np.setdiff1d(others, classes)).size:
        raise UsageError(f"{root}: the test set has labels that the training set lacks: {unknown.tolist()}")
    sets = [
        MemorySet(torch.from_numpy(np.searchsorted(classes, v)), torch.from_numpy(x[:, None]))
        for x, v in ((train, values), (test, others))
    ]
    return Source(root.resolve().name, [str(value) for value in classes], sets[0], sets[1])


def _pairs(root: Path) -> list[tuple[str, tuple[Path, Path]]]:
    """Which part it is, and its files of images and of labels; a plain file hides its gzipped twin."""
    found: dict[tuple[str, str], tuple[Path, Path]] = {}
    for path in sorted(root.iterdir()):
        if match := _IMAGES.fullmatch(path.name):
            stem, part, dot = match["stem"], match["part"], match["dot"]
            labels = root / f"{stem}{part}-labels{dot}idx1-ubyte"
            found.setdefault(
                (stem, part), (path, labels if labels.is_file() else labels.with_name(labels.name + ".gz"))
            )
    return [(part, pair) for (_, part), pair in sorted(found.items())]


def _read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    if not labels.is_file():
        raise UsageError(f"{images} has no labels: {labels} (or without .gz) is missing")
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(y) or 0 in x.shape:
        raise CampfireError(f"{images} holds {x.shape} pixels, and {labels} {len(y)} labels: they do not fit together")
    return x, y


def read_idx(path: Path, axes: int) -> np.ndarray:
    """A uint8 array with this number of axes.

    Raises:
        CampfireError: the file is no such IDX file, or is truncated, or longer than it says.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * axes)
            if len(header) < 4 + 4 * axes or header[:4] != bytes((0, 0, 8, axes)):
                raise CampfireError(f"{path} is no IDX file of bytes with {axes} axes: it begins with {header[:4]!r}")
            shape = [int(length) for length in np.frombuffer(header, ">u4", offset=4)]
            raw = _read_up_to(file, math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CampfireError(f"cannot read {path} ({error}): fetch it again") from error
    if len(raw) != math.prod(shape):
        raise CampfireError(
            f"{path} says {math.prod(shape)} values and holds {'more' if len(raw) > math.prod(shape) else len(raw)}: "
            "fetch it again"
        )
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _read_up_to(file: io.BufferedIOBase, most: int) -> bytearray:
    """In blocks, so that a header that promises too much does not take the memory for it."""
    raw = bytearray()
    while len(raw) < most and (block := file.read(min(2**20, most - len(raw)))):
        raw += block
    return raw
