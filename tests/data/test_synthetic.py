import pytest
import torch

from campfire.data import MemorySet, load
from campfire.errors import UnknownName, UsageError


def test_options_and_seed() -> None:
    spec = "synthetic:classes=3,images=30,channels=1,size=16"
    data = load(spec)
    assert (len(data.train), len(data.test), len(data.classes)) == (30, 7, 3)
    assert (data.channels, data.image_size, data.flip, data.pad) == (1, 16, False, 4)
    assert data.train.labels.bincount().tolist() == [10, 10, 10]
    assert load(spec).fingerprint == data.fingerprint
    assert load(f"{spec},seed=1").fingerprint != data.fingerprint


def test_no_two_images_are_equal() -> None:
    data = load("synthetic:images=40,size=8")
    assert isinstance(data.train, MemorySet)
    assert isinstance(data.test, MemorySet)
    everything = torch.cat([data.train.pixels, data.test.pixels]).flatten(1)
    assert len(everything.unique(dim=0)) == 50


def test_classes_can_be_learnt() -> None:
    data = load("synthetic:classes=5,images=250,size=16")
    assert isinstance(data.train, MemorySet)
    assert isinstance(data.test, MemorySet)
    train, test = (part.pixels.flatten(1).float() for part in (data.train, data.test))
    means = torch.stack([train[data.train.labels == c].mean(0) for c in range(5)])
    right = (torch.cdist(test, means).argmin(1) == data.test.labels).float().mean()
    assert right > 0.95
    single = torch.cdist(test, train).argmin(1)  # the nearest image: noise drowns the pattern of a single pixel
    assert (data.train.labels[single] == data.test.labels).float().mean() < 1


@pytest.mark.parametrize("options", ["classes=1", "images=3", "channels=2", "size=2"])
def test_options_out_of_range(options: str) -> None:
    with pytest.raises(UsageError, match="synthetic wants classes >= 2"):
        load(f"synthetic:{options}")


def test_unknown_options() -> None:
    with pytest.raises(UnknownName, match="did you mean 'classes'"):
        load("synthetic:clases=3")
    with pytest.raises(UsageError, match="of type int; got 'many'"):
        load("synthetic:images=many")
