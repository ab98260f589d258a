"""From the name of a source to images that can be trained on."""

import dataclasses
import difflib
import functools
import os
from collections import Counter
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image

from campfire.data import arrow, cifar, folder, idx, shards, tiny_imagenet
from campfire.data.decode import fit, in_channels, into_memory, probe, to_array, without_bad
from campfire.data.digits import Digits
from campfire.data.sets import EncodedSet, ImageData, ImageSet, MemorySet, mean_and_std
from campfire.data.source import Source, some
from campfire.data.splitting import stratified
from campfire.data.synthetic import Synthetic
from campfire.errors import UnknownName, UsageError
from campfire.spelling import read as read_spelling

BUILT_IN = {"digits": Digits, "synthetic": Synthetic}
LAYOUTS = (tiny_imagenet, cifar, idx, shards)  # those with files of their own; any other folder is one of class folders
SMALL = 64  # pixels: images up to here are kept in memory
LARGE_SIZE = 224  # pixels: what a network sees of larger images
# of ImageNet, as torchvision and timm have it; grey is their average
_IMAGENET = {3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 1: ((0.449,), (0.226,))}


def load(
    source: str | os.PathLike[str], *, image_size: int | None = None, channels: int | None = None,
    val_split: float | None = None, skip_bad_images: bool = False, workers: int = 0, memory_limit: int = 2 * 2**30,
    mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None, flip: bool | None = None,
) -> ImageData:  # fmt: skip
    """Training and test images by the name of a source, or from a folder, whose layout is recognised.

    ===================================================  ===========================================================
    ``digits``                                           1,797 real handwritten digits, in the package
    ``synthetic:classes=10,images=2000,size=32,seed=0``  made up, learnable (all options have these defaults)
    ``train/<class>/*`` and ``val|validation|test/...``  image files; the first of these three names is the test set
    ``train/<wnid>/images/*``, ``val_annotations.txt``   Tiny-ImageNet
    ``data_batch_1`` ..., ``train.bin``, ...             CIFAR-10 or CIFAR-100 (fine labels), pickles or binary
    ``train-images-idx3-ubyte[.gz]``, ...                MNIST, Fashion-MNIST, KMNIST, one part of EMNIST
    ``*-train-*.tar`` and ``*-val-*.tar``                WebDataset shards: an image and a .cls of the same name
    ``hfds/NAME`` or ``hfds/PATH``                       a data set of Hugging Face's ``datasets`` (extra ``data``)
    ===================================================  ===========================================================

    Images of up to 64 pixels, judged by up to 1,000 headers, are decoded into memory once: all of one size (by their
    shorter side: the most frequent one), and normalised by their own mean and deviation. Larger ones stay files, are
    seen at 224 pixels, and are normalised as ImageNet is. Where all of those headers are grey the network sees one
    channel. Nothing is downloaded, but by
    ``datasets`` what its cache lacks.

    Args:
        source: one of the above; ``./digits`` is a folder of that name.
        image_size: height and width for the network, in pixels; up to 64, all images are kept in memory at that size.
        channels: 1 or 3, instead of what the files have.
        val_split: hold this share of the training images out and test on those, instead of on the source's own test
            images; always the same ones. The classes may then also lie in the folder itself.
        skip_bad_images: leave out what cannot be read, with one counted warning, instead of stopping. Large images
            are for this decoded once while loading, about 1 ms each.
        workers: threads that decode while loading; 0 for all cores.
        memory_limit: bytes that decoded images may take; small images beyond it are streamed as large ones are.
        mean, std: for normalisation, one number for each channel, of values between 0 and 1.
        flip: whether training mirrors images; default: those in colour, except synthetic ones.

    Raises:
        UsageError: there is no such source, a folder is missing, empty, of one class or inconsistent, or an option is
            out of its range.
        CampfireError: a file is damaged; names it.

    >>> print(load("digits"))
    digits: 1,437 training and 360 test images in 10 classes, 1 x 32 x 32, in memory
    """
    _check_options(image_size=image_size, channels=channels, workers=workers, memory_limit=memory_limit)
    for name, numbers in (("mean", mean), ("std", std)):
        if numbers is not None and not (isinstance(numbers, list | tuple) and all(map(_is_number, numbers))):
            raise UsageError(f"{name} is one number for each channel, such as [0.5, 0.5, 0.5]; got {numbers!r}")
    found = _split(_find(source, val_split), val_split)
    wanted = _Wanted(image_size, channels, skip_bad_images, workers, memory_limit)
    train, test, size, channels = _settle(found, wanted)
    _check_classes(found, train, test)
    usual = mean_and_std(train.pixels) if isinstance(train, MemorySet) else _IMAGENET[channels]
    mean, std = (tuple(given or own) for given, own in zip((mean, std), usual, strict=True))
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise UsageError(f"wanted {channels} numbers in mean and in std, those of std above 0; got {mean} and {std}")
    mirror = next(choice for choice in (flip, found.flip, channels == 3) if choice is not None)
    pad = None if isinstance(train, EncodedSet) and size > SMALL else 4
    return ImageData(found.name, found.classes, train, test, size, channels, mean, std, mirror, pad)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_options(**given: object) -> None:
    """They may come from a configuration file, where anything can stand."""
    for name, value in given.items():
        least = 1 if name in ("image_size", "channels") else 0
        whole = isinstance(value, int) and _is_number(value) and value >= least
        if value is not None and (not whole or (name == "channels" and value not in (1, 3))):
            wanted = "1 or 3" if name == "channels" else f"a whole number from {least} up"
            raise UsageError(f"{name} is {wanted}; got {value!r}")


def _find(source: str | os.PathLike[str], val_split: float | None) -> Source:
    name = os.fspath(source)
    if name.partition(":")[0] in BUILT_IN:
        return read_spelling("data set", name, BUILT_IN).read()
    if name.startswith(arrow.PREFIX):
        return arrow.read(name)
    root = Path(name).expanduser()
    if not root.is_dir():
        _refuse(name, root)
    for layout in LAYOUTS:
        if home := layout.detect(root):
            return layout.read(home)
    return folder.read(root, own_test=val_split is None)


def _refuse(name: str, root: Path) -> NoReturn:
    if root.exists():
        raise UsageError(f"{name} is a file; unpack it, and give the folder")
    if difflib.get_close_matches(name, BUILT_IN):
        raise UnknownName("data set or folder", name, BUILT_IN)
    raise UsageError(
        f"there is no folder {name!r}, and no such data set in the package ({', '.join(BUILT_IN)}); nothing is "
        "downloaded: give the path of a folder of images"
    )


def _split(found: Source, share: float | None) -> Source:
    if share is None and found.test is None:
        raise UsageError(f"{found.name} has nothing to test on; hold out with val_split=0.1")
    if share is None:
        return found
    stay, held = stratified(found.train.labels.numpy(), share)
    return dataclasses.replace(found, train=found.train.take(stay), test=found.train.take(held))


@dataclasses.dataclass(frozen=True)
class _Wanted:
    image_size: int | None
    channels: int | None
    skip_bad: bool
    workers: int
    memory_limit: int


def _settle(found: Source, wanted: _Wanted) -> tuple[ImageSet, ImageSet, int, int]:
    """Both sets at one size, in memory where that is where they belong, with this size and the number of channels."""
    train, test = found.train, found.test
    if isinstance(train, MemorySet) and isinstance(test, MemorySet):
        return _settle_arrays(train, test, wanted)
    if isinstance(train, EncodedSet) and isinstance(test, EncodedSet):
        return _settle_files(train, test, wanted)
    raise TypeError(f"{found.name}: both sets should be arrays, or both files")


def _settle_files(train: EncodedSet, test: EncodedSet, wanted: _Wanted) -> tuple[ImageSet, ImageSet, int, int]:
    sizes, grey = probe(train, skip_bad=wanted.skip_bad)
    channels = wanted.channels or (1 if grey else 3)
    size = wanted.image_size or _common_size(sizes)
    if size <= SMALL and (len(train) + len(test)) * channels * size**2 <= wanted.memory_limit:
        decode = functools.partial(into_memory, workers=wanted.workers, skip_bad=wanted.skip_bad)
        return decode(train, size, channels), decode(test, size, channels), size, channels
    if wanted.skip_bad:
        train, test = (without_bad(files, workers=wanted.workers) for files in (train, test))
    return train, test, size, channels


def _common_size(sizes: Counter[tuple[int, int]]) -> int:
    """The most frequent shorter side of small images; ties go to the larger one."""
    if max(max(size) for size in sizes) > SMALL:
        return LARGE_SIZE
    sides = Counter(min(size) for size in sizes.elements())
    return max(sides, key=lambda side: (sides[side], side))


def _settle_arrays(train: MemorySet, test: MemorySet, wanted: _Wanted) -> tuple[ImageSet, ImageSet, int, int]:
    _, found, height, width = train.pixels.shape
    size, channels = wanted.image_size or min(height, width), wanted.channels or found
    need = (len(train) + len(test)) * channels * size**2
    if need > wanted.memory_limit:
        raise UsageError(
            f"{len(train) + len(test):,} images of {channels} x {size} x {size} take {need:,} bytes, more than "
            f"memory_limit={wanted.memory_limit:,}; raise it, or choose a smaller image_size"
        )
    return _converted(train, size, channels), _converted(test, size, channels), size, channels


def _converted(images: MemorySet, size: int, channels: int) -> MemorySet:
    """The same images as `into_memory` makes of files of them."""
    if images.pixels.shape[1:] == (channels, size, size):
        return images
    pixels = np.empty((len(images), channels, size, size), np.uint8)
    for i, array in enumerate(images.pixels.numpy()):
        image = Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))
        pixels[i] = to_array(fit(in_channels(image, channels), size))
    return MemorySet(images.labels, torch.from_numpy(pixels))


def _check_classes(found: Source, train: ImageSet, test: ImageSet) -> None:
    if len(found.classes) < 2:
        raise UsageError(f"{found.name} has one class only ({some(found.classes)}); there is nothing to tell apart")
    for part, images in (("training", train), ("test", test)):
        counts = torch.bincount(images.labels, minlength=len(found.classes)).tolist()
        if missing := [name for name, count in zip(found.classes, counts, strict=True) if not count]:
            raise UsageError(f"{found.name} has no {part} images left of {some(missing)}; add some that can be read")
