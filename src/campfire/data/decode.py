"""Image files to uint8 arrays, with Pillow: a bad file is named, or left out and counted."""

import os
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from campfire.data.sets import EncodedSet, MemorySet
from campfire.errors import CampfireError, UsageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
# Pillow would go by the content, and start Ghostscript on a PostScript file that is called .jpg
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "PPM", "TIFF")
_GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L", "I")
_CHUNK = 64  # images in one task of the thread pool


class BadImages(UserWarning):
    """Some images cannot be read, and were left out."""


def read_image(files: EncodedSet, index: int, channels: int) -> Image.Image:
    """One of the images, decoded in mode L (1 channel) or RGB (3); what is transparent becomes white.

    Raises:
        CampfireError: it cannot be read; names it.
    """
    try:
        with Image.open(files.open(index), formats=_FORMATS) as image:
            return in_channels(image, channels)
    except Exception as error:  # broken bytes make Pillow raise almost anything
        raise CampfireError(
            f"cannot read the image {files.where(index)} ({error}): replace it, remove it, or leave all such images out with "
            "--skip-bad-images (skip_bad_images=True)"
        ) from error


def in_channels(image: Image.Image, channels: int) -> Image.Image:
    """Converted to mode L or RGB; 16-bit greys keep their upper eight bits."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode == mode and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # Pillow itself would clip at 255
        image = Image.fromarray(np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert(mode)


def fit(image: Image.Image, size: int, short: int | None = None) -> Image.Image:
    """Scaled until its shorter side is ``short`` (default: size), then the central square of ``size`` pixels."""
    width, height = image.size
    short = short or size
    scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if scaled != image.size:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in scaled)
    return image if scaled == (size, size) else image.crop((left, top, left + size, top + size))


def to_array(image: Image.Image) -> np.ndarray:
    """uint8 [C, H, W]."""
    return np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)


def threads(workers: int) -> int:
    """How many threads decode: ``workers``, or all cores this process may use."""
    return workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def probe(files: EncodedSet, *, skip_bad: bool, most: int = 1000) -> tuple[Counter[tuple[int, int]], bool]:
    """Sizes (width, height) of up to ``most`` evenly spaced images, and whether all of these are grey; headers only.

    Raises:
        CampfireError: a header cannot be read; with ``skip_bad``, if no header can.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    grey, failure = True, None
    for i in np.unique(np.linspace(0, len(files) - 1, min(most, len(files)), dtype=np.int64)):
        try:
            with Image.open(files.open(int(i)), formats=_FORMATS) as image:
                sizes[image.size] += 1
                grey &= image.mode in _GREY
        except Exception as error:  # as in `read_image`
            failure = CampfireError(f"cannot read the image {files.where(int(i))} ({error}): replace or remove it")
            if not skip_bad:
                read_image(files, int(i), 3)
                raise failure from error
    if failure and not sizes:
        raise failure
    return sizes, grey


def into_memory(files: EncodedSet, size: int, channels: int, *, workers: int = 0, skip_bad: bool = False) -> MemorySet:
    """All images, decoded once by a pool of threads and brought to ``size`` by `fit`.

    Raises:
        CampfireError: one cannot be read; with ``skip_bad`` it is left out, and a `BadImages` warning counts them.
    """
    pixels = np.empty((len(files), channels, size, size), np.uint8)

    def decode(i: int) -> None:
        pixels[i] = to_array(fit(read_image(files, i, channels), size))

    keep = _attempt(files, decode, workers, skip_bad)
    everything = MemorySet(files.labels, torch.from_numpy(pixels))
    return everything if len(keep) == len(files) else everything.take(keep)


def without_bad(files: EncodedSet, *, workers: int = 0) -> EncodedSet:
    """Those that can be read: every file is decoded once, JPEGs at an eighth of their size.

    ``Image.verify`` would be quicker, but it lets a truncated JPEG pass.
    """

    def decode(i: int) -> None:
        try:
            with Image.open(files.open(i), formats=_FORMATS) as image:
                image.draft(None, (image.width // 8, image.height // 8))
                image.load()
        except Exception as error:  # as in `read_image`
            raise CampfireError(f"{files.where(i)} ({error})") from error

    return files.take(_attempt(files, decode, workers, skip_bad=True))


def _attempt(files: EncodedSet, decode: Callable[[int], None], workers: int, skip_bad: bool) -> np.ndarray:
    """Run ``decode`` on every index, and return those where it did not fail."""

    def chunk(start: int) -> list[tuple[int, CampfireError]]:
        failures = []
        for i in range(start, min(start + _CHUNK, len(files))):
            try:
                decode(i)
            except CampfireError as error:
                if not skip_bad:
                    raise
                failures.append((i, error))
        return failures

    with ThreadPoolExecutor(threads(workers)) as pool:
        bad = [failure for some in pool.map(chunk, range(0, len(files), _CHUNK)) for failure in some]
    if bad:
        _warn(files, [i for i, _ in bad])
    return np.setdiff1d(np.arange(len(files)), np.array([i for i, _ in bad], dtype=np.int64))


def _warn(files: EncodedSet, bad: list[int]) -> None:
    first = ", ".join(files.where(i) for i in bad[:3]) + (", ..." if len(bad) > 3 else "")
    if len(bad) == len(files):
        raise UsageError(f"none of the {len(files)} images below {files.root} can be read: {first}")
    warnings.warn(f"left out {len(bad)} of {len(files)} images that cannot be read: {first}", BadImages, stacklevel=2)
