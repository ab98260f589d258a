"""Tiny-ImageNet as it is distributed: ``train/<wnid>/images/*.JPEG``, and validation labels in one text file."""

from pathlib import Path

from campfire.data import folder
from campfire.data.decode import EXTENSIONS
from campfire.data.sets import FileSet
from campfire.data.source import Source, some
from campfire.errors import UsageError

_LABELS = Path("val", "val_annotations.txt")


def detect(root: Path) -> Path | None:
    """Where this layout is."""
    return root if (root / _LABELS).is_file() else None


def read(root: Path) -> Source:
    """Classes are WordNet ids; ``val/val_annotations.txt`` names a file and its class in each line.

    Raises:
        UsageError: a line that names no class of train/, or a file that is not a plain name; see also `folder.read`.
    """
    found = folder.read(root, own_test=False)
    number = {wnid: label for label, wnid in enumerate(found.classes)}
    names, labels = [], []
    for at, line in enumerate((root / _LABELS).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        name, wnid = (*line.split("\t"), "")[:2]
        if wnid not in number or Path(name).name != name or not name.lower().endswith(EXTENSIONS):
            raise UsageError(
                f"{root / _LABELS}, line {at}: wanted IMAGE<tab>CLASS with a class of train/ "
                f"({some(found.classes)}); got {line!r}"
            )
        names.append(name)
        labels.append(number[wnid])
    if not names:
        raise UsageError(f"{root / _LABELS} is empty; unpack the data set again")
    return Source(found.name, found.classes, found.train, FileSet.of(root / "val" / "images", names, labels))
