"""One folder for each class: ``train/<class>/*`` and ``val|validation|test/<class>/*``."""

import os
from collections.abc import Iterator
from pathlib import Path

from campfire.data.decode import EXTENSIONS
from campfire.data.sets import FileSet
from campfire.data.source import Source, contents, some
from campfire.errors import UsageError

TEST_NAMES = ("val", "validation", "test")  # the first that is there is tested on
_CURE = "wanted train/<class>/<images> and val|validation|test/<class>/<images>"


def read(root: Path, *, own_test: bool = True) -> Source:
    """The images below ``root``; without ``own_test`` only those to train on, which may then lie in root/<class>.

    Raises:
        UsageError: a folder is missing, empty or has one class only, or the two parts have different classes.
    """
    home = root / "train"
    if not home.is_dir():
        if own_test:
            raise UsageError(f"{root} has no folder train/ ({contents(root)}); {_CURE}, or root/<class> and val_split")
        home = root
    classes, train = _list(home)
    if not own_test:
        return Source(root.resolve().name, classes, train, None)
    found = [root / name for name in TEST_NAMES if (root / name).is_dir()]
    if not found:
        raise UsageError(f"{root} has nothing to test on ({contents(root)}); {_CURE}, or hold out with val_split=0.1")
    others, test = _list(found[0])
    if others != classes:
        raise UsageError(_mismatch(home, classes, found[0], others))
    return Source(root.resolve().name, classes, train, test)


def _list(folder: Path) -> tuple[list[str], FileSet]:
    """Classes, sorted, and every image below each, sorted by its path."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        found = f"has one class folder only, {classes[0]}/" if classes else "has no class folders"
        raise UsageError(f"{folder} {found} ({contents(folder)}); {_CURE}, with two classes or more")
    images = [images_below(folder, name) for name in classes]
    if empty := [name for name, files in zip(classes, images, strict=True) if not files]:
        raise UsageError(
            f"{folder} has classes without images: {some(empty)}; fill or remove these folders "
            f"(images end in {', '.join(EXTENSIONS)})"
        )
    names = [file for files in images for file in files]
    return classes, FileSet.of(folder, names, [label for label, files in enumerate(images) for _ in files])


def images_below(folder: Path, name: str) -> list[str]:
    """Paths relative to ``folder`` of all images in its sub-folder ``name``, at any depth, sorted."""
    return sorted(
        os.path.relpath(os.path.join(home, file), folder)
        for home, files in _walk(folder / name)
        for file in files
        if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
    )


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and their files; behind links too, but for a link to a folder that it lies in."""
    for home, folders, files in os.walk(folder, followlinks=True):
        yield home, files
        real = os.path.realpath(home)
        above = [name for name in folders if f"{real}/".startswith(f"{os.path.realpath(os.path.join(home, name))}/")]
        folders[:] = [name for name in folders if name not in above]


def _mismatch(one: Path, classes: list[str], other: Path, others: list[str]) -> str:
    only = [
        f"only {path} has {some(sorted(set(names) - set(rest)))}"
        for path, names, rest in ((one, classes, others), (other, others, classes))
        if set(names) - set(rest)
    ]
    return f"{one} and {other} have different classes: {'; '.join(only)}; give both the same class folders"
