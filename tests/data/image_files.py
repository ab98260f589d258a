"""Little data sets on disc, in every layout that can be read."""

import gzip
import io
import pickle
import struct
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_image(path: Path, size: tuple[int, int] = (12, 12), mode: str = "RGB", seed: int = 0) -> Path:
    """A noisy image of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(size[1], size[0], 3, seed=seed)).convert(mode).save(path)
    return path


def write_folders(
    root: Path, counts: Mapping[str, int], classes: Sequence[str] = ("cat", "dog"), suffix: str = ".png", **image: Any
) -> Path:
    """``counts`` images of each class for each part, such as train=4, val=2."""
    for seed, (part, label, i) in enumerate((p, c, i) for p in counts for c in classes for i in range(counts[p])):
        write_image(root / part / label / f"{i}{suffix}", seed=seed, **image)
    return root


def write_tiny_imagenet(root: Path) -> Path:
    """Two classes, three training and two validation images each, 16 pixels."""
    wnids = ("n01", "n02")
    for c, wnid in enumerate(wnids):
        for i in range(3):
            write_image(root / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", (16, 16), seed=10 * c + i)
    lines = []
    for i in range(4):
        write_image(root / "val" / "images" / f"val_{i}.JPEG", (16, 16), seed=100 + i)
        lines.append(f"val_{i}.JPEG\t{wnids[1 - i % 2]}\t0\t0\t15\t15\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    return root


def python2_pickle(pixels: np.ndarray, labels: Sequence[int], key: bytes = b"labels") -> bytes:
    """Byte for byte how Python 2's protocol 2 writes the dictionary of a batch: str as SHORT_BINSTRING/BINSTRING."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value

    minus_one = b"J" + struct.pack("<i", -1)
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + 2 * minus_one + b"K\x00tb"
    shape = b"".join(b"J" + struct.pack("<i", n) for n in pixels.shape) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01"
    array += shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(key) + numbers + b"u."


def write_cifar(root: Path, kind: str, per_file: int = 4) -> tuple[Path, np.ndarray, np.ndarray]:
    """One of the four official layouts, with all training pixels [N, 3, 32, 32] and (fine) labels [N]."""
    root.mkdir(parents=True, exist_ok=True)
    classes, binary, hundred = (4, kind.endswith("bin") or kind.endswith("binary"), "100" in kind)
    files = ["train", "test"] if hundred else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    names = [f"class {c}" if not binary else f"class_{c}" for c in range(classes)]
    key, meta = ("fine_labels", "fine_label_names") if hundred else ("labels", "label_names")
    batches = [(noise(per_file, 3072, seed=s), np.arange(per_file) % classes) for s in range(len(files))]
    for name, (pixels, labels) in zip(files, batches, strict=True):
        if binary:
            coarse = np.full((per_file, 1), 99, np.uint8)
            fine = labels[:, None].astype(np.uint8)
            np.hstack([coarse, fine, pixels] if hundred else [fine, pixels]).tofile(root / f"{name}.bin")
        else:
            (root / name).write_bytes(python2_pickle(pixels, labels.tolist(), key.encode()))
    if binary:
        (root / ("fine_label_names.txt" if hundred else "batches.meta.txt")).write_text("\n".join(names) + "\n\n")
    else:
        (root / ("meta" if hundred else "batches.meta")).write_bytes(pickle.dumps({meta: names}, protocol=0))
    train = batches[:-1]
    pixels = np.concatenate([p for p, _ in train]).reshape(-1, 3, 32, 32)
    return root, pixels, np.concatenate([y for _, y in train])


def idx(array: np.ndarray) -> bytes:
    """The array as an IDX file."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_mnist(root: Path, zipped: bool = False, stem: str = "", test: str = "t10k") -> np.ndarray:
    """Ten training and six test images of 9 x 9 pixels, labelled 1, 2 and 5; the training images come back."""
    root.mkdir(parents=True, exist_ok=True)
    images = noise(10, 9, 9)
    labels = np.array([1, 2, 5] * 4, np.uint8)
    for part, x in (("train", images), (test, noise(6, 9, 9, seed=1))):
        for kind, array in (("images-idx3-ubyte", x), ("labels-idx1-ubyte", labels[: len(x)])):
            path = root / f"{stem}{part}-{kind}{'.gz' * zipped}"
            path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    return images


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar file of these members, in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def write_shards(root: Path, counts: Mapping[str, int], each: int = 4, size: tuple[int, int] = (90, 70)) -> Path:
    """``counts`` images of each of the classes 0 and 1 for each part, ``each`` of them in a shard."""
    for part, count in counts.items():
        samples = []
        for i in range(2 * count):
            data = io.BytesIO()
            Image.fromarray(noise(size[1], size[0], 3, seed=100 * len(part) + i)).save(data, "JPEG")
            samples.append(
                {f"s{i:04}.jpg": data.getvalue(), f"s{i:04}.cls": str(i % 2).encode(), f"s{i:04}.json": b"{}"}
            )
        for at in range(0, len(samples), each):
            members = {name: content for sample in samples[at : at + each] for name, content in sample.items()}
            write_tar(root / f"pets-{part}-{at // each:04}.tar", members)
    return root
