import re
import shutil
from pathlib import Path

import pytest
from image_files import write_folders, write_image

from campfire.data import FileSet, MemorySet, load
from campfire.data.folder import images_below, read
from campfire.errors import UsageError


def names(files: object) -> list[str]:
    assert isinstance(files, FileSet)
    return [Path(files.open(i)).relative_to(files.root).as_posix() for i in range(len(files))]


def test_files_and_classes_are_sorted(tmp_path: Path) -> None:
    for name in ("zebra/b.png", "zebra/10.JPG", "zebra/9.jpeg", "ant/deep/x.bmp", "ant/y.gif"):
        write_image(tmp_path / "train" / name)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    (tmp_path / "train" / "ant" / "._x.bmp").write_bytes(b"left by a Mac")
    (tmp_path / "train" / ".cache").mkdir()
    for name in ("ant", "zebra"):
        write_image(tmp_path / "val" / name / "1.webp")
    found = read(tmp_path)
    assert found.classes == ["ant", "zebra"]
    assert names(found.train) == ["ant/deep/x.bmp", "ant/y.gif", "zebra/10.JPG", "zebra/9.jpeg", "zebra/b.png"]
    assert found.train.labels.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("there", "taken"), [(["test"], "test"), (["test", "validation"], "validation"), (["val", "test"], "val")]
)
def test_the_first_of_val_validation_test(tmp_path: Path, there: list[str], taken: str) -> None:
    found = read(write_folders(tmp_path, {"train": 2, **dict.fromkeys(there, 1)}))
    assert isinstance(found.test, FileSet)
    assert Path(found.test.root).name == taken


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 1, "val": 1})
    odd = (root / "train" / "cat" / "0.png").rename(
        root / "train" / "cat" / b"\xff\xfe.png".decode("utf-8", "surrogateescape")
    )
    found = read(root)
    assert isinstance(found.train, FileSet)
    assert found.train.open(0) == str(odd)


def test_held_out_from_train(tmp_path: Path) -> None:
    data = load(write_folders(tmp_path, {"train": 10}), val_split=0.2)
    assert (len(data.train), len(data.test)) == (16, 4)
    assert data.test.labels.bincount().tolist() == [2, 2]


def test_held_out_from_folders_without_train(tmp_path: Path) -> None:
    write_folders(tmp_path, {"": 10})
    data = load(tmp_path, val_split=0.1)
    assert (data.classes, len(data.train), len(data.test)) == (["cat", "dog"], 18, 2)


def test_held_out_images_replace_those_of_the_source(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 10, "val": 7})
    data = load(root, val_split=0.5)
    assert isinstance(data.test, MemorySet)
    assert (len(data.train), len(data.test)) == (10, 10)


def spoil(root: Path, how: str) -> None:
    if how == "no train":
        shutil.rmtree(root / "train")
    elif how == "no val":
        shutil.rmtree(root / "val")
    elif how == "one class":
        shutil.rmtree(root / "train" / "dog")
    elif how == "flat val":
        shutil.rmtree(root / "val")
        write_image(root / "val" / "1.png")
    elif how == "empty class":
        (root / "train" / "dog" / "0.png").unlink()
        (root / "train" / "dog" / "1.png").unlink()
    elif how == "class only in train":
        write_image(root / "train" / "eel" / "0.png")
    else:
        (root / "val" / "dog").rename(root / "val" / "wolf")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no train", r"has no folder train/ \(it holds val/\); wanted train/<class>/<images> and"),
        ("no val", r"has nothing to test on \(it holds train/\); .*val_split=0.1"),
        ("one class", r"train has one class folder only, cat/ .*two classes or more"),
        ("flat val", r"val has no class folders \(it holds 1.png\)"),
        ("empty class", r"classes without images: dog; fill or remove .*\.jpg, \.jpeg"),
        ("class only in train", r"different classes: only \S+train has eel; give both the same"),
        ("other names", r"only \S+train has dog; only \S+val has wolf"),
    ],
)
def test_bad_folders(tmp_path: Path, how: str, said: str) -> None:
    root = write_folders(tmp_path, {"train": 2, "val": 1})
    spoil(root, how)
    with pytest.raises(UsageError, match=said) as caught:
        load(root)
    assert str(root) in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path} has no folder train/ (it is empty)")):
        load(tmp_path)


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 2, "val": 1})
    one = next(folder for folder in sorted((root / "train").iterdir()) if folder.is_dir())
    (one / "again").symlink_to(one, target_is_directory=True)
    elsewhere = tmp_path / "more"
    elsewhere.mkdir()
    shutil.copy(next(one.glob("*.*")), elsewhere / "more.png")
    (one / "linked").symlink_to(elsewhere, target_is_directory=True)
    assert len(images_below(root / "train", one.name)) == 3
