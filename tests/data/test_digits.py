from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import noise

import campfire.data
from campfire.data import MemorySet, load
from campfire.data.digits import enlarge


def test_the_digits_ship_with_the_package() -> None:
    data = load("digits")
    assert (len(data.train), len(data.test), data.classes) == (1437, 360, list("0123456789"))
    assert (data.channels, data.image_size, data.flip, data.pad) == (1, 32, False, 4)
    total = torch.bincount(data.train.labels) + torch.bincount(data.test.labels)
    assert total.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert data.fingerprint == "25ab08e487f01eb5"


def test_their_source_is_named_beside_them() -> None:
    text = (Path(campfire.data.__file__).parent / "uci_digits" / "README.txt").read_text()
    for fact in ("Optical Recognition of Handwritten Digits", "Alpaydin", "Kaynak", "1998", "CC BY 4.0"):
        assert fact in text


def test_enlarged_as_torch_does() -> None:
    small = noise(20, 8, 8) % 17
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(small)[:, None].double() * 255 / 16, size=32, mode="bilinear"
    )
    assert abs(enlarge(small) - wanted[:, 0].numpy()).max() <= 0.5 + 1e-9


def test_the_digits_can_be_told_apart() -> None:
    """Half of the ten classes by nearest class mean would already be far from chance; these are clean digits."""
    data = load("digits")
    assert isinstance(data.train, MemorySet)
    assert isinstance(data.test, MemorySet)
    train, test = (part.pixels.flatten(1).double() for part in (data.train, data.test))
    means = torch.stack([train[data.train.labels == c].mean(0) for c in range(10)])
    right = (torch.cdist(test, means).argmin(1) == data.test.labels).double().mean()
    assert right > 0.85


@pytest.mark.parametrize("size", [8, 28])
def test_at_another_size(size: int) -> None:
    data = load("digits", image_size=size)
    assert isinstance(data.train, MemorySet)
    assert data.train.pixels.shape == (1437, 1, size, size)
    assert np.isclose(data.mean[0], load("digits").mean[0], atol=0.02)
