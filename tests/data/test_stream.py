import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import write_folders
from torch import Tensor

from campfire.data import FileSet, ImageData, batches, load
from campfire.data.stream import stream
from campfire.errors import CampfireError


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    """Colour images of 90 x 70 pixels, seen at 32."""
    root = write_folders(tmp_path_factory.mktemp("large"), {"train": 9, "val": 3}, size=(90, 70), suffix=".jpg")
    return dataclasses.replace(load(root), image_size=32)


def taken(data: ImageData, split: str = "train", **options: int) -> list[tuple[Tensor, Tensor]]:
    return list(batches(data, split, 4, **{"epoch": 1, "seed": 5, "train": split == "train"} | options))


def assert_same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def test_large_images_are_streamed(large: ImageData) -> None:
    assert isinstance(large.train, FileSet)
    assert large.pad is None
    assert large.mean == (0.485, 0.456, 0.406)
    assert {tuple(x.shape) for x, _ in taken(large)} == {(4, 3, 32, 32)}
    assert [len(y) for _, y in taken(large, "test")] == [4, 2]


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_number_of_workers_changes_nothing(large: ImageData, split: str) -> None:
    assert_same(taken(large, split, workers=2), taken(large, split, workers=0))


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_memory_is_used_again_but_not_while_it_is_read(large: ImageData, workers: int, channels_last: bool) -> None:
    assert isinstance(large.train, FileSet)
    order = [np.array([i]) for i in range(len(large.train))]
    how = {"seed": 5, "epoch": 1, "train": True, "device": torch.device("cpu"), "channels_last": channels_last}
    places = set()
    for index, (x, _) in zip(order, stream(large.train, large, order, workers=workers, **how), strict=True):
        time.sleep(0.02)  # workers run ahead as far as they may
        [(alone, _)] = stream(large.train, large, [index], workers=0, **how)
        assert torch.equal(x, alone)
        assert x.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        places.add(x.untyped_storage().data_ptr())
    assert workers or len(places) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_within_an_epoch(large: ImageData, workers: int) -> None:
    assert_same(taken(large, start_batch=2, workers=workers), taken(large)[2:])


def test_ranks_share_the_images(large: ImageData) -> None:
    ranks = [taken(large, rank=rank, world=2) for rank in range(2)]
    together = torch.cat([x for step in zip(*ranks, strict=True) for x, _ in step])
    alone = torch.cat([x for x, _ in batches(large, "train", 8, epoch=1, seed=5, train=True)])
    assert torch.equal(together.flatten(1).sort(0).values, alone.flatten(1).sort(0).values)


def test_another_epoch_shows_other_parts(large: ImageData) -> None:
    one, other = (torch.cat([x for x, _ in taken(large, epoch=epoch)]) for epoch in (1, 2))
    assert not (one.flatten(1)[:, None] == other.flatten(1)).all(2).any()


def test_no_number_is_taken_from_the_global_generator(large: ImageData) -> None:
    before = torch.random.get_rng_state()
    taken(large)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_small_images_beyond_the_memory_are_the_same(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 9, "val": 3}, size=(20, 16))
    in_memory = load(root)
    streamed = load(root, memory_limit=0)
    assert isinstance(streamed.train, FileSet)
    assert streamed.image_size == 16
    streamed = dataclasses.replace(streamed, mean=in_memory.mean, std=in_memory.std)
    for split in ("train", "test"):
        assert_same(taken(streamed, split), taken(in_memory, split))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named(tmp_path: Path, workers: int) -> None:
    root = write_folders(tmp_path, {"train": 4, "val": 1}, size=(90, 70), suffix=".jpg")
    data = load(root)
    bad = root / "train" / "dog" / "2.jpg"
    bad.write_bytes(bad.read_bytes()[:400])
    with pytest.raises(CampfireError, match=r"cannot read the image .*dog.2.jpg .*--skip-bad-images") as caught:
        taken(data, workers=workers)
    assert "Traceback" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_too_little_shared_memory(large: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, where it is 64 MB."""

    def full(size: int) -> torch.UntypedStorage:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    with pytest.raises(CampfireError, match=r"no room for 4 batches \(0 MB\).*--shm-size"):
        taken(large, workers=2)
    assert len(taken(large, workers=0)) == 4
