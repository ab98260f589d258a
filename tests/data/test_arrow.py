"""Data sets of Hugging Face's datasets: rows are read as files are."""

import dataclasses
import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from image_files import noise
from PIL import Image

from campfire.data import ImageData, MemorySet, batches, load
from campfire.data.arrow import ArrowSet, _numbers
from campfire.errors import CampfireError, UsageError


def jpeg(seed: int, side: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(noise(side, side + 10, 3, seed=seed)).save(data, "JPEG")
    return data.getvalue()


def write(folder: Path, side: int = 80, test: str = "validation", **columns: Any) -> Path:
    """Eight images to train on and four to test on, by save_to_disk."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra data)")
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])} | columns

    def part(count: int, first: int) -> Any:
        rows = {
            "image": [{"bytes": jpeg(first + i, side), "path": None} for i in range(count)],
            "label": [0, 1] * (count // 2),
        }
        rows |= {name: [None] * count for name in kinds if name not in rows}
        return datasets.Dataset.from_dict({name: rows[name] for name in kinds}, features=datasets.Features(kinds))

    datasets.DatasetDict({"train": part(8, 0), test: part(4, 50)}).save_to_disk(str(folder))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ImageData:
    return dataclasses.replace(load(f"hfds/{write(tmp_path_factory.mktemp('arrow'))}"), image_size=32)


def test_what_it_holds(data: ImageData) -> None:
    assert isinstance(data.train, ArrowSet)
    assert data.classes == ["cat", "dog"]
    assert (len(data.train), len(data.test), data.pad) == (8, 4, None)
    read = data.train.open(3)
    assert isinstance(read, io.BytesIO)
    assert read.getvalue() == jpeg(3, 80)
    assert data.train.where(3).startswith("in row 3 of hfds/")


def test_workers_and_resumes(data: ImageData) -> None:
    def taken(**options: int) -> list[Any]:
        return list(batches(data, "train", 2, epoch=1, seed=5, train=True, **options))

    alone = taken()
    for other in (taken(workers=2), alone[:1] + taken(start_batch=1)):
        assert len(other) == len(alone) == 4
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(alone, other, strict=True))


def test_small_images_are_kept_in_memory(tmp_path: Path) -> None:
    data = load(f"hfds/{write(tmp_path / 'a', side=20, test='test')}")
    assert isinstance(data.train, MemorySet)
    assert data.train.pixels.shape == (8, 3, 20, 20)
    assert data.fingerprint == load(f"hfds/{write(tmp_path / 'b', side=20, test='test')}").fingerprint


def test_a_share_may_be_held_out(tmp_path: Path) -> None:
    source = f"hfds/{write(tmp_path / 'a', test='other')}"
    with pytest.raises(UsageError, match="has nothing to test on; hold out with val_split"):
        load(source)
    assert len(load(source, val_split=0.25).test) == 2


def test_what_is_no_such_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra data)")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CampfireError, match="datasets cannot load"):
        load(f"hfds/{tmp_path / 'empty'}")
    two = write(tmp_path / "two", another=datasets.Image())
    with pytest.raises((UsageError, CampfireError), match="wanted one of images"):
        load(f"hfds/{two}")


@pytest.mark.parametrize("odd", [None, "cat", 0.5])
def test_labels_that_are_no_numbers(odd: Any) -> None:
    with pytest.raises(UsageError, match=r"the column label of train holds .*; wanted the number of a class"):
        _numbers([0, 1, odd], "hfds/x: the column label of train")


def test_without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CampfireError, match=r"hfds/x needs datasets .*; pip install 'campfire-sparse\[data\]'"):
        load("hfds/x")


def test_one_table_without_splits(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra data)")
    datasets.load_from_disk(str(write(tmp_path / "all")))["train"].save_to_disk(str(tmp_path / "one"))
    data = load(f"hfds/{tmp_path / 'one'}", val_split=0.25)
    assert (len(data.train), len(data.test)) == (6, 2)
    with pytest.raises(UsageError, match="has nothing to test on; hold out with val_split"):
        load(f"hfds/{tmp_path / 'one'}")
