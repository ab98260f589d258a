"""WebDataset shards: the same images as in files, in an order that reads a few shards at a time."""

import dataclasses
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import noise, write_folders, write_shards, write_tar
from PIL import Image
from torch import Tensor

from campfire.data import EncodedSet, ImageData, MemorySet, batches, load, shards
from campfire.data.augment import CROP_DRAWS
from campfire.data.keyed import uniforms
from campfire.errors import CampfireError, UsageError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five shards of four images to train on, and two to test on."""
    return write_shards(tmp_path_factory.mktemp("shards") / "pets", {"train": 10, "val": 4})


@pytest.fixture(scope="module")
def data(root: Path) -> ImageData:
    return dataclasses.replace(load(root), image_size=32)


def taken(data: ImageData, split: str = "train", **options: int) -> list[tuple[Tensor, Tensor]]:
    return list(batches(data, split, 4, **{"epoch": 1, "seed": 5, "train": split == "train"} | options))


def assert_same(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])


def test_what_they_hold(data: ImageData) -> None:
    assert str(data) == "pets: 20 training and 8 test images in 2 classes, 3 x 32 x 32, streamed from files"
    assert data.classes == ["0", "1"]
    assert isinstance(data.train, shards.ShardSet)
    assert data.train.labels.tolist() == [0, 1] * 10
    pixels = np.asarray(Image.open(data.train.open(7)))
    encoded = io.BytesIO()
    Image.fromarray(noise(70, 90, 3, seed=507)).save(encoded, "JPEG")
    assert np.array_equal(pixels, np.asarray(Image.open(encoded)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_workers_resumes_and_ranks(data: ImageData, split: str) -> None:
    alone = taken(data, split)
    assert_same(taken(data, split, workers=2), alone)
    assert_same(taken(data, split, start_batch=1, workers=2), alone[1:])
    ranks = [taken(data, split, rank=rank, world=2) for rank in range(2)]
    seen = torch.cat([x for rank in ranks for x, _ in rank]).flatten(1).sum(1).sort().values
    together = [x for x, _ in batches(data, split, 8, epoch=1, seed=5, train=split == "train")]
    assert torch.equal(seen, torch.cat(together).flatten(1).sum(1).sort().values)


def test_a_few_shards_are_read_at_a_time(data: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(data.train, shards.ShardSet)
    monkeypatch.setattr(shards, "POOL", 2)
    order = data.train.order(seed=0, epoch=0)
    assert sorted(order.tolist()) == list(range(20))
    read = data.train.spans[order, 0]
    assert [len(set(part.tolist())) for part in np.split(read, [8, 16])] == [2, 2, 1]
    assert order.tolist() != data.train.order(seed=0, epoch=1).tolist()
    assert any(read[i] != read[i + 1] for i in range(3))  # mixed, not one after the other


def test_the_place_in_an_epoch_tells_nothing_of_the_crop() -> None:
    """Else the first batches of an epoch were the small crops, and the last ones the large."""
    count = 3000
    spans = np.stack([np.arange(count) % 3, np.arange(count), np.ones(count)], 1).astype(np.int64)
    labels = torch.zeros(count, dtype=torch.int64)
    images = shards.ShardSet(labels, "", ("a.tar", "b.tar", "c.tar"), spans, np.array([b"x"] * count))
    place = np.argsort(images.order(seed=3, epoch=1))
    drawn = uniforms(np.arange(count), seed=3, epoch=1, draws=CROP_DRAWS)
    assert max(abs(np.corrcoef(place, draw)[0, 1]) for draw in drawn) < 0.1


def test_small_ones_are_kept_in_memory_as_files_are(tmp_path: Path) -> None:
    data = load(write_shards(tmp_path, {"train": 3, "validation": 2}, size=(20, 16)))
    assert isinstance(data.train, MemorySet)
    assert data.train.pixels.shape == (6, 3, 16, 16)


def test_a_set_of_one_part_is_split(tmp_path: Path) -> None:
    root = write_shards(tmp_path, {"a": 10})
    with pytest.raises(UsageError, match=r"has nothing to test on; hold out with val_split"):
        load(root)
    assert len(load(root, val_split=0.2).test) == 4


def test_folders_of_shards_and_labels_of_words(tmp_path: Path) -> None:
    image = io.BytesIO()
    Image.fromarray(noise(70, 90, 3)).save(image, "PNG")
    for part in ("train", "val"):
        members = {
            f"{c}/{i}.{e}": d
            for c in ("dog", "cat")
            for i in (1, 2)
            for e, d in (("PNG", image.getvalue()), ("cls", c.encode()))
        }
        write_tar(tmp_path / part / "000000.tar", members)
    data = load(tmp_path)
    assert data.classes == ["cat", "dog"]
    assert data.train.labels.tolist() == [1, 1, 0, 0]
    assert isinstance(data.train, EncodedSet)
    assert data.train.where(2) == f"cat/1 in {tmp_path}/train/000000.tar"


def test_a_tar_beside_class_folders_is_left_alone(tmp_path: Path) -> None:
    write_folders(tmp_path, {"train": 2, "val": 1})
    write_tar(tmp_path / "ILSVRC2012_img_train.tar", {})
    assert load(tmp_path).classes == ["cat", "dog"]


def test_other_data_has_another_fingerprint(root: Path, tmp_path: Path) -> None:
    data = load(root)
    assert pickle.loads(pickle.dumps(data)).fingerprint == data.fingerprint
    assert load(write_shards(tmp_path / "same", {"train": 10, "val": 4})).fingerprint == data.fingerprint
    assert load(write_shards(tmp_path / "other", {"train": 10, "val": 5})).fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"a.jpg": b"x", "b.jpg": b"x", "b.cls": b"0"}, r"sample 'a' has no label \(.cls\)"),
        ({"a.cls": b"0"}, r"sample 'a' has no image \(.jpg or .jpeg or .png\)"),
        (
            {"a.jpg": b"x", "a.cls": b"7", "b.jpg": b"x", "b.cls": b"0"},
            "tested on classes that it is not trained on: 7",
        ),
    ],
)
def test_samples_that_are_none(members: dict[str, bytes], says: str, tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": 2})
    write_tar(tmp_path / "val.tar", members)
    with pytest.raises(UsageError, match=says):
        load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "noise", "gzip"])
def test_a_damaged_shard_is_named(damage: str, tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": 2, "val": 1})
    bad = tmp_path / "pets-train-0000.tar"
    whole = bad.read_bytes()
    bad.write_bytes({"cut": whole[:3000], "noise": b"x" * 3000, "gzip": b"\x1f\x8b" + whole[2:]}[damage])
    with pytest.raises(CampfireError, match=r"pets-train-0000.tar.* copy it again"):
        load(tmp_path)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path, {"train": 2, "val": 1})
    bad = tmp_path / "pets-train-0000.tar"
    data = load(tmp_path)
    assert isinstance(data.train, shards.ShardSet)
    first, size = data.train.spans[1, 1:].tolist()
    whole = bytearray(bad.read_bytes())
    whole[first : first + size] = b"x" * size
    bad.write_bytes(whole)
    with pytest.raises(
        CampfireError, match=r"cannot read the image s0001 in .*pets-train-0000.tar .*--skip-bad-images"
    ):
        taken(data, workers=2)
    with pytest.warns(UserWarning, match="left out 1 of 4 images that cannot be read: s0001"):
        assert len(load(tmp_path, skip_bad_images=True, image_size=100).train) == 3


def test_webdataset_reads_the_same(root: Path, data: ImageData) -> None:
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed (extra dev)")
    tars = sorted(str(tar) for tar in root.glob("*train*.tar"))
    theirs = list(webdataset.WebDataset(tars, shardshuffle=False).to_tuple("__key__", "jpg", "cls"))
    assert isinstance(data.train, shards.ShardSet)
    for i, (key, jpg, label) in enumerate(theirs):
        assert (data.train.keys[i], data.train.open(i).getvalue()) == (key.encode(), jpg)
        assert data.train.labels[i] == int(label)
    assert len(theirs) == len(data.train)


def png(value: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (8, 8), value).save(data, "PNG")
    return data.getvalue()


def test_of_several_images_the_plain_one(tmp_path: Path) -> None:
    def write(*endings: str) -> Path:
        for part in ("train", "val"):
            members = {}
            for i in range(4):
                members[f"{i}.cls"] = b"%d" % (i % 2)
                members |= {f"{i}{ending}": png(0 if "depth" in ending else 200) for ending in endings}
            write_tar(tmp_path / f"pets-{part}-0.tar", members)
        return tmp_path

    data = load(write(".depth.png", ".png"), image_size=8)
    assert isinstance(data.train, MemorySet)
    assert set(data.train.pixels.flatten().tolist()) == {200}
    with pytest.raises(UsageError, match=r"sample '0' has several images \(.depth.png, .left.png\); wanted one"):
        load(write(".depth.png", ".left.png"))
