from pathlib import Path

import pytest
from image_files import noise, write_tiny_imagenet

from campfire.data import MemorySet, load
from campfire.errors import UsageError


def test_labels_come_from_the_annotations(tmp_path: Path) -> None:
    data = load(write_tiny_imagenet(tmp_path))
    assert data.classes == ["n01", "n02"]
    assert (len(data.train), data.test.labels.tolist()) == (6, [1, 0, 1, 0])
    assert (data.image_size, data.channels, data.flip) == (16, 3, True)
    assert isinstance(data.test, MemorySet)
    wanted = noise(16, 16, 3, seed=102).astype(int).mean()  # JPEG keeps the mean of val_2.JPEG
    assert abs(data.test.pixels[2].double().mean().item() - wanted) < 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("val_0.JPEG\tn77\t0\t0\t1\t1", r"line 2: wanted IMAGE<tab>CLASS .*n01, n02.*n77"),
        ("val_0.JPEG", "line 2"),
        ("../../secret.png\tn01", r"line 2: .*secret"),
        ("\tn01", "line 2"),
        ("..\tn01", "line 2"),
    ],
)
def test_bad_annotations(tmp_path: Path, line: str, said: str) -> None:
    root = write_tiny_imagenet(tmp_path)
    (root / "val" / "val_annotations.txt").write_text(f"val_0.JPEG\tn01\t0\t0\t1\t1\n{line}\n")
    with pytest.raises(UsageError, match=said):
        load(root)


def test_no_annotations(tmp_path: Path) -> None:
    root = write_tiny_imagenet(tmp_path)
    (root / "val" / "val_annotations.txt").write_text("")
    with pytest.raises(UsageError, match="is empty"):
        load(root)


def test_a_validation_image_is_missing(tmp_path: Path) -> None:
    root = write_tiny_imagenet(tmp_path)
    (root / "val" / "images" / "val_1.JPEG").unlink()
    with pytest.raises(ValueError, match=r"cannot read the image .*val_1.JPEG"):
        load(root)
