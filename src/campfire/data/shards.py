"""WebDataset shards: tar files, read where they lie. The members of a sample share a name up to its first dot."""

import io
import itertools
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from campfire.data.decode import EXTENSIONS
from campfire.data.folder import TEST_NAMES
from campfire.data.keyed import AMONG, bits, permutation
from campfire.data.sets import EncodedSet
from campfire.data.source import Source, some
from campfire.errors import CampfireError, UsageError

POOL = 16  # shards whose images are mixed: so many are read at a time
_LABEL, _LONGEST = ".cls", 1000  # bytes of a label
_CURE = "wanted shards called *train*.tar and *val*.tar, in the folder or in folders train/ and val/"


@dataclass(frozen=True)
class Sample:
    """Where an image lies in its shard, and its label as it is written."""

    key: str
    first: int
    size: int
    label: str


@dataclass(frozen=True, eq=False)
class ShardSet(EncodedSet):
    """Images in tar files, by where they lie: each is read alone, so any image can be had at any time.

    Attributes:
        shards: paths relative to ``root``.
        spans: shard, first byte and number of bytes, int64 [N, 3].
        keys: names of the samples, bytes [N].
    """

    shards: tuple[str, ...]
    spans: np.ndarray
    keys: np.ndarray

    def open(self, index: int) -> io.BytesIO:
        shard, first, size = self.spans[index].tolist()
        with open(os.path.join(self.root, self.shards[shard]), "rb") as file:
            file.seek(first)
            return io.BytesIO(file.read(size))

    def where(self, index: int) -> str:
        return f"{os.fsdecode(self.keys[index])} in {os.path.join(self.root, self.shards[self.spans[index, 0]])}"

    def take(self, index: np.ndarray) -> "ShardSet":
        labels = self.labels[torch.from_numpy(index)]
        return ShardSet(labels, self.root, self.shards, self.spans[index], self.keys[index])

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Shards in a random order, and the images of every `POOL` of them mixed: disks read a few files at a time."""
        turn = np.argsort(permutation(len(self.shards), seed=seed, epoch=epoch))
        chance = bits(np.arange(len(self)), seed=seed, epoch=epoch, draw=AMONG)
        return np.lexsort((chance, turn[self.spans[:, 0]] // POOL))

    def _identity(self) -> Iterable[bytes | memoryview]:
        yield b"\n".join(self.keys.tolist())
        yield self.spans[:, 2].tobytes()


def detect(root: Path) -> Path | None:
    """Where this layout is: tar files, and no class folders."""
    folders = (root / "train").is_dir() and any(entry.is_dir() for entry in (root / "train").iterdir())
    return root if not folders and _tars(root) else None


def read(root: Path) -> Source:
    """Shards by their names: what holds the word train is trained on, or all where none does and there is no test set.

    Raises:
        UsageError: no training shards, a sample without an image or a label, or a label that is not among the classes.
        CampfireError: a shard is no tar file, or damaged.
    """
    tars = _tars(root)
    test = next((found for name in TEST_NAMES if (found := _called(tars, root, name))), [])
    train = _called(tars, root, "train") or ([] if test else tars)
    if not train:
        raise UsageError(f"{root} has no training shards ({some([t.name for t in tars])}); {_CURE}")
    samples = [list(_samples(tar)) for tar in train]
    labels = sorted({sample.label for shard in samples for sample in shard}, key=_number)
    held = _set(root, train, samples, labels)
    tested = _set(root, test, [list(_samples(tar)) for tar in test], labels) if test else None
    return Source(root.resolve().name, labels, held, tested)


def _tars(root: Path) -> list[Path]:
    folders = [root, *(root / name for name in ("train", *TEST_NAMES))]
    return sorted(tar for folder in folders if folder.is_dir() for tar in folder.glob("*.tar"))


def _called(tars: list[Path], root: Path, word: str) -> list[Path]:
    return [tar for tar in tars if word in re.findall("[a-z]+", str(tar.relative_to(root)).lower())]


def _number(label: str) -> tuple[int, str]:
    """Numbers in their order, before words."""
    return (int(label), "") if label.isdecimal() else (2**63, label)


def _set(root: Path, tars: Sequence[Path], samples: Sequence[Sequence[Sample]], classes: Sequence[str]) -> ShardSet:
    number = {label: n for n, label in enumerate(classes)}
    flat = [(shard, sample) for shard, held in enumerate(samples) for sample in held]
    if strange := sorted({sample.label for _, sample in flat} - set(number)):
        raise UsageError(f"{root} is tested on classes that it is not trained on: {some(strange)}")
    return ShardSet(
        torch.tensor([number[sample.label] for _, sample in flat], dtype=torch.int64),
        os.fspath(root),
        tuple(os.fspath(tar.relative_to(root)) for tar in tars),
        np.array([(shard, sample.first, sample.size) for shard, sample in flat], np.int64).reshape(-1, 3),
        np.array([os.fsencode(sample.key) for _, sample in flat], np.bytes_),
    )


def _samples(tar: Path) -> Iterator[Sample]:
    """The samples of a shard, in its order; nothing is unpacked."""
    try:
        with tarfile.open(tar, "r:") as archive, open(tar, "rb") as file:
            for key, members in itertools.groupby(_files(archive, tar), lambda member: _split(member.name)[0]):
                yield _sample(f"{tar}: sample {key!r}", key, list(members), file)
    except tarfile.TarError as error:
        raise CampfireError(
            f"cannot read the shard {tar} ({error}); copy it again, and unpack it if it is compressed"
        ) from None


def _files(archive: tarfile.TarFile, tar: Path) -> Iterator[tarfile.TarInfo]:
    size = tar.stat().st_size
    for member in archive:
        if member.offset_data + member.size > size:
            raise CampfireError(f"{tar} is truncated: {member.name} does not lie within it; copy it again")
        if member.isfile():
            yield member


def _split(name: str) -> tuple[str, str]:
    """``a/b.x.jpg`` is the member ``.x.jpg`` of the sample ``a/b``."""
    folder, _, file = name.rpartition("/")
    stem, dot, ending = file.partition(".")
    return f"{folder}/{stem}" if folder else stem, (dot + ending).lower()


def _sample(what: str, key: str, members: Sequence[tarfile.TarInfo], file: BinaryIO) -> Sample:
    found = {_split(member.name)[1]: member for member in members}
    images = [ending for ending in found if ending in EXTENSIONS] or [
        ending for ending in found if ending.endswith(EXTENSIONS)
    ]
    if not images:
        raise UsageError(f"{what} has no image ({' or '.join(EXTENSIONS[:3])})")
    if len(images) > 1:
        raise UsageError(
            f"{what} has several images ({', '.join(images)}); wanted one, such as .jpg, beside .depth.png"
        )
    image = found[images[0]]
    if (label := found.get(_LABEL)) is None:
        raise UsageError(f"{what} has no label ({_LABEL})")
    file.seek(label.offset_data)
    text = file.read(min(label.size, _LONGEST)).decode(errors="replace").strip()
    return Sample(key, image.offset_data, image.size, text)
