import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from image_files import noise, write_folders, write_image
from PIL import EpsImagePlugin, Image

from campfire.data import BadImages, FileSet, MemorySet, load
from campfire.data.decode import fit, in_channels, into_memory, probe, read_image, to_array, without_bad
from campfire.errors import CampfireError, UsageError


def spoil(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-200])
    return path


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "HSV"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode(mode: str, channels: int) -> None:
    image = Image.fromarray(noise(5, 7, 3))
    image = image.convert("L").convert(mode) if mode in ("I;16", "I", "F") else image.convert(mode)
    assert to_array(in_channels(image, channels)).shape == (channels, 5, 7)


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert to_array(read_image(FileSet.of(tmp_path, ["x.png"], [0]), 0, 1))[0].tolist() == [[0, 0, 1], [128, 255, 255]]


@pytest.mark.parametrize("kind", ["RGBA", "LA", "P", "RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_transparent_becomes_white(tmp_path: Path, kind: str, channels: int) -> None:
    if kind in ("RGBA", "LA"):
        image = Image.fromarray(np.zeros((2, 2, 4), np.uint8), "RGBA").convert(kind)
        image.save(tmp_path / "x.png")
    else:
        Image.new(kind, (2, 2), 0).save(tmp_path / "x.png", transparency=(0, 0, 0) if kind == "RGB" else 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = to_array(read_image(FileSet.of(tmp_path, ["x.png"], [0]), 0, channels))
    assert pixels.tolist() == channels * [[[255, 255], [255, 255]]]


def test_half_transparent_over_white() -> None:
    image = Image.new("RGBA", (1, 1), (200, 0, 0, 128))
    assert to_array(in_channels(image, 3)).ravel().tolist() == [227, 127, 127]


def test_fit_keeps_the_aspect() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (to_array(fit(Image.fromarray(wide), 10)) == 200).all()
    assert fit(Image.new("L", (1, 40)), 8).size == (8, 8)


def test_a_program_is_never_started_for_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript under another name: Pillow by itself would hand it to Ghostscript."""
    postscript = io.BytesIO()
    Image.new("RGB", (4, 4)).save(postscript, "EPS")
    (tmp_path / "x.jpg").write_bytes(postscript.getvalue())
    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: started.append(1) or Image.new("RGB", (4, 4)).im)
    with pytest.raises(CampfireError, match=r"cannot read the image .*x\.jpg"):
        read_image(FileSet.of(tmp_path, ["x.jpg"], [0]), 0, 3)
    assert not started


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".bmp", ".webp"])
@pytest.mark.parametrize("size", [(20, 20), (90, 80)])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    root = write_folders(tmp_path, {"train": 3, "val": 1}, suffix=suffix, size=size)
    bad = spoil(root / "train" / "cat" / f"1{suffix}")
    with pytest.raises(CampfireError, match=f"cannot read the image .*cat.1{suffix}.*--skip-bad-images"):
        load(root, image_size=16)
    with pytest.warns(BadImages, match=f"left out 1 of 6 images that cannot be read: .*cat.1{suffix}"):
        data = load(root, image_size=16, skip_bad_images=True)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert bad.exists()


@pytest.mark.parametrize("image_size", [None, 16])
def test_skipping_leaves_the_others_as_they_were(tmp_path: Path, image_size: int | None) -> None:
    """In memory, and streamed: the scan decodes, for a truncated JPEG passes ``Image.verify``."""
    root = write_folders(tmp_path, {"train": 70, "val": 1}, suffix=".jpg", size=(90, 80))
    whole = load(root, image_size=image_size)
    for name in ("cat/3.jpg", "dog/0.jpg", "dog/69.jpg"):
        spoil(root / "train" / name)
    (root / "val" / "dog" / "1.jpg").write_bytes(b"no image at all")
    with pytest.warns(BadImages) as seen:
        data = load(root, image_size=image_size, skip_bad_images=True, workers=2)
    assert [str(w.message).partition(" images")[0] for w in seen] == ["left out 3 of 140", "left out 1 of 3"]
    assert isinstance(data.train, FileSet if image_size is None else MemorySet)
    kept = np.array([i for i, name in enumerate(sorted(range(70), key=lambda n: f"{n}.jpg")) if name != 3])
    assert data.train.labels.bincount().tolist() == [69, 68]
    if isinstance(data.train, MemorySet) and isinstance(whole.train, MemorySet):
        assert np.array_equal(data.train.pixels[:69], whole.train.pixels[kept])


def test_without_a_flaw_nothing_is_said(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 2, "val": 1}, size=(90, 80))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(root, skip_bad_images=True).fingerprint == load(root).fingerprint


def test_a_class_that_is_all_bad(tmp_path: Path) -> None:
    root = write_folders(tmp_path, {"train": 2, "val": 1})
    for path in (root / "train" / "dog").iterdir():
        path.write_bytes(b"x")
    with pytest.warns(BadImages), pytest.raises(UsageError, match="no training images left of dog"):
        load(root, skip_bad_images=True)


def test_all_bad(tmp_path: Path) -> None:
    files = FileSet.of(tmp_path, ["a.png", "b.png"], [0, 1])
    for attempt in (lambda: into_memory(files, 8, 3, skip_bad=True), lambda: without_bad(files)):
        with pytest.raises(UsageError, match=r"none of the 2 images below .* can be read"):
            attempt()
    with pytest.raises(CampfireError, match="cannot read the image"):
        probe(files, skip_bad=True)


def test_the_first_bad_image_is_named_by_any_number_of_threads(tmp_path: Path) -> None:
    names = [write_image(tmp_path / f"{i:03}.png").name for i in range(200)]
    files = FileSet.of(tmp_path, names, [0] * 200)
    for i in (70, 199):
        (tmp_path / names[i]).write_bytes(b"x")
    for workers in (1, 4):
        with pytest.raises(CampfireError, match=r"070\.png"):
            into_memory(files, 12, 3, workers=workers)
    good = files.take(np.arange(70))
    one, four = (into_memory(good, 12, 3, workers=workers) for workers in (1, 4))
    assert one.fingerprint == four.fingerprint


def test_probe_looks_at_few_images(tmp_path: Path) -> None:
    names = [write_image(tmp_path / f"{i}.png", (10 + i, 12), "L").name for i in range(9)]
    sizes, grey = probe(FileSet.of(tmp_path, names, [0] * 9), skip_bad=False, most=3)
    assert sorted(sizes) == [(10, 12), (14, 12), (18, 12)]
    assert grey
