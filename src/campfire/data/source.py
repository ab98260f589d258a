"""What the reader of one kind of source hands over."""

from dataclasses import dataclass
from pathlib import Path

from campfire.data.sets import ImageSet


@dataclass(frozen=True)
class Source:
    """Images as they were found, of whatever size; ``test`` is None where nothing was set aside."""

    name: str
    classes: list[str]
    train: ImageSet
    test: ImageSet | None
    flip: bool | None = None  # None: mirror colour images, not grey ones


def contents(folder: Path, most: int = 6) -> str:
    """What is in a folder, for errors."""
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return "it is empty"
    more = f", ... ({len(names)} entries)" if len(names) > most else ""
    return f"it holds {', '.join(names[:most])}{more}"


def some(names: list[str], most: int = 5) -> str:
    """The first few names."""
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")
