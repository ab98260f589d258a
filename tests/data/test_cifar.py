import pickle
from pathlib import Path

import numpy as np
import pytest
from image_files import noise, python2_pickle, write_cifar

from campfire.data import MemorySet, load
from campfire.errors import CampfireError, UsageError

KINDS = ["cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary"]


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_both_layouts_of_both(tmp_path: Path, kind: str, below: bool) -> None:
    home, pixels, labels = write_cifar(tmp_path / kind, kind)
    data = load(tmp_path if below else home)
    assert isinstance(data.train, MemorySet)
    assert np.array_equal(data.train.pixels.numpy(), pixels)
    assert data.train.labels.tolist() == labels.tolist()
    assert (len(data.test), len(data.classes), data.name) == (4, 4, kind)
    assert data.classes[1] == ("class_1" if "bin" in kind else "class 1")
    assert (data.image_size, data.channels, data.flip, data.pad) == (32, 3, True, 4)


def test_mean_and_deviation_are_those_of_the_training_set(tmp_path: Path) -> None:
    home, pixels, _ = write_cifar(tmp_path, KINDS[0])
    data = load(home)
    assert np.allclose(data.mean, (pixels / 255).mean((0, 2, 3)), rtol=1e-12)
    assert np.allclose(data.std, (pixels / 255).std((0, 2, 3)), rtol=1e-9)


def test_a_training_file_is_missing(tmp_path: Path) -> None:
    home, *_ = write_cifar(tmp_path, KINDS[0])
    (home / "data_batch_3").unlink()
    with pytest.raises(UsageError, match=r"CIFAR without data_batch_3 .*unpack the archive again"):
        load(home)


@pytest.mark.parametrize("kind", KINDS)
def test_truncated(tmp_path: Path, kind: str) -> None:
    home, *_ = write_cifar(tmp_path, kind)
    bad = next(
        home / name for name in ("data_batch_2", "data_batch_2.bin", "train", "train.bin") if (home / name).exists()
    )
    bad.write_bytes(bad.read_bytes()[:-7])
    with pytest.raises(CampfireError, match=f"{bad.name}.*fetch"):
        load(home)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (python2_pickle(noise(4, 3072), [0, 1, 2, 9]), "labels from 0 to 3"),
        (python2_pickle(noise(4, 3072), [0, 1, 2]), "4 images and 3 labels"),
        (python2_pickle(noise(4, 3072), [0, 1, 2, 3], key=b"other"), "no list 'labels'"),
        (python2_pickle(noise(4, 3071), [0, 1, 2, 3]), "no array 'data' of 3072 bytes"),
        (pickle.dumps({"data": [1, 2], "labels": [0, 1]}, protocol=2), "no array 'data'"),
        (pickle.dumps({"data": noise(2, 3072), "labels": [0, "cat"]}, protocol=2), "whole numbers"),
        (pickle.dumps([1, 2, 3]), "cannot read"),
        (b"", "cannot read"),
        (python2_pickle(noise(0, 3072), []), "0 images"),
    ],
)
def test_damaged_batches(tmp_path: Path, content: bytes, said: str) -> None:
    home, *_ = write_cifar(tmp_path, KINDS[0])
    (home / "data_batch_4").write_bytes(content)
    with pytest.raises(CampfireError, match=said) as caught:
        load(home)
    assert "data_batch_4" in str(caught.value)


def test_labels_out_of_range_in_a_binary_file(tmp_path: Path) -> None:
    home, *_ = write_cifar(tmp_path, KINDS[3])
    np.full(3074, 200, np.uint8).tofile(home / "test.bin")
    with pytest.raises(CampfireError, match=r"test\.bin .*labels from 0 to 3"):
        load(home)


def test_names_of_the_classes_are_missing(tmp_path: Path) -> None:
    home, *_ = write_cifar(tmp_path, KINDS[2])
    (home / "meta").write_bytes(pickle.dumps({"other": 1}))
    with pytest.raises(CampfireError, match="meta has no list 'fine_label_names'"):
        load(home)
