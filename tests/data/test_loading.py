import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import noise, write_folders, write_image, write_mnist
from PIL import Image

from campfire.data import FileSet, MemorySet, load
from campfire.data.sets import mean_and_std
from campfire.errors import UnknownName, UsageError


def test_unknown_sources(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        load("digts")
    with pytest.raises(UsageError, match=r"no folder 'nowhere/at/all'.*nothing is downloaded: give the path"):
        load("nowhere/at/all")
    (tmp_path / "cifar.tar.gz").write_bytes(b"")
    with pytest.raises(UsageError, match="is a file; unpack it"):
        load(tmp_path / "cifar.tar.gz")


def test_a_folder_may_be_called_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folders(tmp_path / "digits", {"train": 2, "val": 1})
    monkeypatch.chdir(tmp_path)
    assert load("./digits").classes == ["cat", "dog"]
    assert len(load("digits").classes) == 10


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 0}, "image_size is a whole number from 1 up; got 0"),
        ({"image_size": 32.0}, r"image_size is a whole number from 1 up; got 32\.0"),
        ({"channels": 2}, "channels is 1 or 3; got 2"),
        ({"workers": -1}, "workers is a whole number from 0 up"),
        ({"memory_limit": "2e9"}, "memory_limit is a whole number from 0 up; got '2e9'"),
        ({"val_split": 1.0}, "between 0 and 1"),
        ({"val_split": "a tenth"}, "between 0 and 1"),
        ({"mean": 0.5}, r"mean is one number for each channel, .*got 0\.5"),
        ({"std": ["x"]}, r"std is one number for each channel, .*got \['x'\]"),
        ({"mean": (0.1, 0.2, 0.3)}, "wanted 1 numbers in mean"),
        ({"std": (0.0,)}, "above 0"),
        ({"memory_limit": 1000}, r"take 1,840,128 bytes, more than memory_limit=1,000; raise it"),
    ],
)
def test_bad_options(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load("digits", **options)  # pyright: ignore[reportArgumentType]


def test_options_override(tmp_path: Path) -> None:
    data = load("digits", mean=(0.25,), std=(0.5,), flip=True)
    assert (data.mean, data.std, data.flip) == ((0.25,), (0.5,), True)
    assert load("digits", mean=(0.25,)).std == load("digits").std


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("P", 3), ("RGBA", 3)])
def test_channels_follow_the_files(tmp_path: Path, mode: str, channels: int) -> None:
    data = load(write_folders(tmp_path, {"train": 2, "val": 1}, mode=mode))
    assert (data.channels, data.flip) == (channels, channels == 3)
    assert isinstance(data.train, MemorySet)
    assert data.train.pixels.shape == (4, channels, 12, 12)


def test_one_colour_image_makes_all_colour(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 2, "val": 1}, mode="L")
    write_image(root / "train" / "dog" / "9.png", mode="RGB")
    assert load(root).channels == 3


def test_channels_may_be_chosen(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 2, "val": 1})
    assert load(root, channels=1).channels == 1
    digits = load("digits", channels=3)
    assert isinstance(digits.train, MemorySet)
    assert torch.equal(digits.train.pixels[:, 0], digits.train.pixels[:, 2])
    assert len(digits.mean) == 3


def test_the_most_frequent_size_wins(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 3, "val": 1}, size=(20, 24))
    write_image(root / "train" / "cat" / "9.png", (50, 50))
    data = load(root)
    assert isinstance(data.train, MemorySet)
    assert data.train.pixels.shape == (7, 3, 20, 20)
    assert load(root, image_size=11).image_size == 11


def test_one_large_image_makes_all_large(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 3, "val": 1})
    write_image(root / "train" / "cat" / "9.png", (65, 20))
    data = load(root)
    assert isinstance(data.train, FileSet)
    assert (data.image_size, data.pad, data.mean) == (224, None, (0.485, 0.456, 0.406))


def test_large_grey_images(tmp_path: Path) -> None:
    data = load(write_folders(tmp_path, {"train": 2, "val": 1}, size=(80, 80), mode="L"))
    assert (data.channels, data.mean, data.flip) == (1, (0.449,), False)


def test_large_images_made_small_are_kept_in_memory(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 2, "val": 1}, size=(80, 90))
    data = load(root, image_size=32)
    assert isinstance(data.train, MemorySet)
    assert data.pad == 4


def test_arrays_and_files_are_resized_alike(tmp_path: Path) -> None:
    images = write_mnist(tmp_path / "idx")
    for part, count in (("train", 10), ("val", 6)):
        for i in range(count):
            x = images[i] if part == "train" else noise(6, 9, 9, seed=1)[i]
            path = tmp_path / "files" / part / str((1, 2, 5)[i % 3]) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(path)
    one, other = load(tmp_path / "idx", image_size=13), load(tmp_path / "files", image_size=13)
    assert isinstance(one.train, MemorySet)
    assert isinstance(other.train, MemorySet)
    assert one.classes == other.classes
    order = np.argsort(one.train.labels.numpy(), kind="stable")
    assert torch.equal(one.train.pixels[order], other.train.pixels)


def test_fingerprints_notice_other_data(tmp_path: Path) -> None:
    for size in (12, 70):
        root = write_folders(tmp_path / str(size), {"train": 2, "val": 1}, size=(size, size))
        shutil.copytree(root, tmp_path / f"copy{size}")
        first = load(root).fingerprint
        assert load(tmp_path / f"copy{size}").fingerprint == first
        write_image(root / "train" / "cat" / "7.png", (size, size))
        more = load(root).fingerprint
        (root / "train" / "cat" / "7.png").rename(root / "train" / "dog" / "7.png")
        assert len({first, more, load(root).fingerprint, load(root, image_size=9).fingerprint}) == 4


def test_a_changed_pixel_is_noticed() -> None:
    before, after = load("digits"), load("digits")
    assert isinstance(after.train, MemorySet)
    after.train.pixels[700, 0, 3, 3] += 1
    assert before.fingerprint != after.fingerprint


def test_image_data_survives_pickle_and_prints(tmp_path: Path) -> None:
    data = load(write_folders(tmp_path / "pets", {"train": 2, "val": 1}, size=(70, 70)))
    assert pickle.loads(pickle.dumps(data)).fingerprint == data.fingerprint
    assert str(data) == "pets: 4 training and 2 test images in 2 classes, 3 x 224 x 224, streamed from files"


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (700, 3, 4, 5)])
def test_mean_and_std(shape: tuple[int, ...]) -> None:
    pixels = noise(*shape)
    mean, std = mean_and_std(torch.from_numpy(pixels))
    assert np.allclose(mean, (pixels / 255).mean((0, 2, 3)), rtol=1e-12)
    wanted = (pixels / 255).std((0, 2, 3))
    assert np.allclose(std, np.where(wanted == 0, 1, wanted), rtol=1e-9)
