import dataclasses
import itertools

import numpy as np
import pytest
import torch
from image_files import noise
from torch import Tensor

from campfire.data import ImageData, MemorySet, batches, num_batches
from campfire.data.batching import _indices
from campfire.errors import UsageError


def make(train: int = 50, test: int = 23, channels: int = 3) -> ImageData:
    """Images whose labels are their indices, so that a batch says which images it holds."""
    sets = [MemorySet(torch.arange(n), torch.from_numpy(noise(n, channels, 8, 8, seed=n))) for n in (train, test)]
    return ImageData(
        "made", ["a", "b"], sets[0], sets[1], 8, channels, (0.5,) * channels, (0.25,) * channels, flip=channels == 3
    )


def by_label(stream: object) -> dict[int, Tensor]:
    return {int(y): x for xs, ys in stream for x, y in zip(xs, ys, strict=True)}  # pyright: ignore


def train(data: ImageData, batch_size: int = 8, **options: int) -> list[tuple[Tensor, Tensor]]:
    return list(batches(data, "train", batch_size, **{"epoch": 0, "seed": 0, "train": True} | options))


def same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    pairs = list(itertools.zip_longest(one, other))
    return bool(pairs) and all(a and b and torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


def test_evaluation_is_normalised_and_in_order() -> None:
    data = dataclasses.replace(make(), mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    found = list(batches(data, "test", 10, epoch=3, seed=9, train=False))
    x, y = (torch.cat(part) for part in zip(*found, strict=True))
    assert y.tolist() == list(range(23))
    assert [len(part) for _, part in found] == [10, 10, 3]
    assert isinstance(data.test, MemorySet)
    scaled = data.test.pixels.double() / 255
    wanted = (scaled - torch.tensor(data.mean).view(3, 1, 1)) / torch.tensor(data.std).view(3, 1, 1)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.double(), wanted, rtol=0, atol=1e-6)


def test_training_depends_on_seed_and_epoch_alone() -> None:
    data = make()
    first = train(data, seed=1, epoch=2)
    assert same(first, train(data, seed=1, epoch=2))
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert not torch.equal(torch.cat([y for _, y in first]), torch.cat([y for _, y in train(data, **other)]))


def test_an_image_looks_the_same_in_any_batch() -> None:
    data = make(48)
    small, large = by_label(train(data, 8)), by_label(train(data, 24))
    assert small.keys() == large.keys()
    assert all(torch.equal(small[label], large[label]) for label in small)
    next_epoch = by_label(train(data, 8, epoch=1))
    assert sum(torch.equal(small[label], next_epoch[label]) for label in small) < 6


@pytest.mark.parametrize("start", [0, 1, 5, 6, 9])
def test_resume_within_an_epoch(start: int) -> None:
    data = make()
    assert len(train(data)) == 6
    rest = train(data, start_batch=start)
    assert len(rest) == max(0, 6 - start)
    assert not rest or same(rest, train(data)[start:])


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_the_batches_of_one_process(world: int) -> None:
    data = make(100)
    alone = train(data, 4 * world)
    ranks = [train(data, 4, rank=rank, world=world) for rank in range(world)]
    assert {len(rank) for rank in ranks} == {len(alone)}
    for step, batch in enumerate(alone):
        together = by_label([rank[step] for rank in ranks])
        apart = by_label([batch])
        assert sum(len(rank[step][1]) for rank in ranks) == len(apart) == 4 * world
        assert all(torch.equal(together[label], image) for label, image in apart.items())


@pytest.mark.parametrize(("size", "world"), [(23, 1), (23, 4), (24, 4), (3, 4), (2, 4)])
def test_evaluation_is_shared_without_padding(size: int, world: int) -> None:
    data = make(test=size)
    seen, lengths = [], []
    for rank in range(world):
        found = list(batches(data, "test", 4, epoch=0, seed=0, train=False, rank=rank, world=world))
        assert len(found) == num_batches(data, "test", 4, train=False, world=world, rank=rank)
        lengths.append(len(found))
        seen += [int(y) for _, ys in found for y in ys]
    assert sorted(seen) == list(range(size))
    assert max(lengths) == num_batches(data, "test", 4, train=False, world=world)


@pytest.mark.parametrize(
    ("size", "batch_size", "world", "wanted"),
    [(50, 8, 1, [8] * 6), (48, 8, 1, [8] * 6), (8, 8, 1, [8]), (5, 8, 1, [5]), (50, 8, 3, [8, 8]), (10, 8, 2, [5])],
)
def test_only_a_sole_batch_may_be_smaller(size: int, batch_size: int, world: int, wanted: list[int]) -> None:
    data = make(size)
    assert [len(y) for _, y in train(data, batch_size, world=world)] == wanted
    assert num_batches(data, "train", batch_size, train=True, world=world) == len(wanted)


def test_training_images_can_be_evaluated() -> None:
    found = list(batches(make(), "train", 50, epoch=0, seed=0, train=False))
    assert found[0][1].tolist() == list(range(50))


def test_channels_last() -> None:
    data = make()
    for (x, _), (plain, _) in zip(train(data, channels_last=True), train(data), strict=True):
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert plain.is_contiguous()
        assert torch.equal(x, plain)


def test_the_images_stay_as_they_are() -> None:
    data = make()
    assert isinstance(data.train, MemorySet)
    before = data.train.pixels.clone()
    train(data)
    assert torch.equal(data.train.pixels, before)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"rank": 2, "world": 2}, "rank < world"),
        ({"start_batch": -1}, "at least 0"),
        ({"workers": -1}, "at least 0"),
        ({"world": 51}, "at most 50"),
    ],
)
def test_numbers_out_of_range(options: dict[str, int], said: str) -> None:
    """Raised by the call, not only by the first batch."""
    with pytest.raises(UsageError, match=said):
        batches(make(), "train", **{"batch_size": 8, "epoch": 0, "seed": 0, "train": True} | options)


def test_unknown_split() -> None:
    with pytest.raises(UsageError, match="'train' and 'test'; got 'val'"):
        num_batches(make(), "val", 8, train=False)


def test_orders_are_plain_arrays_of_each_image_once() -> None:
    order = np.concatenate(
        _indices(MemorySet(torch.zeros(1000), torch.zeros(0)), 100, epoch=1, seed=1, train=True, rank=0, world=1)
    )
    assert sorted(order.tolist()) == list(range(1000))


def test_copies_live_on_one_device_each() -> None:
    images = make().train
    assert isinstance(images, MemorySet)
    assert images.on(torch.device("cpu")) is images
    other = images.on(torch.device("meta"))
    assert other is images.on(torch.device("meta"))
    assert other.pixels.device.type == "meta"
