import gzip
from pathlib import Path

import numpy as np
import pytest
from image_files import idx, noise, write_mnist

from campfire.data import MemorySet, load
from campfire.data.idx import read_idx
from campfire.errors import CampfireError, UsageError


@pytest.mark.parametrize("stem", ["", "emnist-letters-"])
@pytest.mark.parametrize("test", ["t10k", "test"])
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "raw"])
def test_the_mnist_family(tmp_path: Path, zipped: bool, test: str, stem: str, below: str) -> None:
    images = write_mnist(tmp_path / below, zipped, stem, test)
    data = load(tmp_path)
    assert isinstance(data.train, MemorySet)
    assert np.array_equal(data.train.pixels.numpy()[:, 0], images)
    assert data.classes == ["1", "2", "5"]
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert (len(data.test), data.channels, data.image_size, data.flip) == (6, 1, 9, False)


def test_names_with_a_dot(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load(tmp_path).train) == 10


def test_plain_and_zipped_side_by_side(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_mnist(tmp_path, zipped=True)
    assert len(load(tmp_path).train) == 10


def test_images_plain_labels_zipped(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.with_name(labels.name + ".gz").write_bytes(gzip.compress(labels.read_bytes()))
    labels.unlink()
    assert len(load(tmp_path).train) == 10


def test_several_sets_in_one_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path, stem="emnist-letters-", test="test")
    write_mnist(tmp_path, stem="emnist-digits-", test="test")
    with pytest.raises(UsageError, match=r"one training set .*emnist-digits-test-images.*move other data sets"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("missing", "said"),
    [("t10k-images-idx3-ubyte", "add what is missing"), ("train-labels-idx1-ubyte", r"has no labels: .*train-labels")],
)
def test_a_missing_file(tmp_path: Path, missing: str, said: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UsageError, match=said):
        load(tmp_path)


@pytest.mark.parametrize(
    ("labels", "said"), [([7] * 6, r"training set lacks: \[7\]"), ([1] * 5, "do not fit together")]
)
def test_labels_that_do_not_fit(tmp_path: Path, labels: list[int], said: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array(labels, np.uint8)))
    with pytest.raises(CampfireError, match=said):
        load(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for part, count in (("train", 10), ("t10k", 6)):
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.full(count, 3, np.uint8)))
    with pytest.raises(UsageError, match=r"one class only \(3\)"):
        load(tmp_path)


WHOLE = idx(noise(3, 4, 5))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (WHOLE[:-1], "says 60 values and holds 59"),
        (WHOLE + b"x", "says 60 values and holds more"),
        (WHOLE[:10], "no IDX file of bytes with 3 axes"),
        (b"", "no IDX file"),
        (idx(noise(3, 4)), "no IDX file of bytes with 3 axes"),
        (b"\0\0\x0d" + WHOLE[3:], "no IDX file of bytes"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"pixels", "and holds 6: fetch"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, said: str, zipped: bool) -> None:
    """The last one promises 2^96 bytes."""
    path = tmp_path / ("x.gz" if zipped else "x")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(CampfireError, match=said):
        read_idx(path, 3)


@pytest.mark.parametrize(
    "content",
    [b"not gzip", gzip.compress(WHOLE)[:-9], gzip.compress(WHOLE)[:12]],
    ids=["no gzip", "no checksum", "cut"],  # gzip writes the time: without names every worker has other tests
)
def test_damaged_gzip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.gz").write_bytes(content)
    with pytest.raises(CampfireError, match=r"x\.gz"):
        read_idx(tmp_path / "x.gz", 3)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "x.gz").write_bytes(gzip.compress(WHOLE + bytes(50_000_000), 1))
    with pytest.raises(CampfireError, match="holds more"):
        read_idx(tmp_path / "x.gz", 3)
