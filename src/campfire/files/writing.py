"""Files written whole or not at all."""

import contextlib
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from campfire.errors import UsageError


def beside(path: Path) -> Path:
    """A temporary path that no other writer has: two may write one file at once, and the last one is in time."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def left(path: Path) -> list[Path]:
    """What writers of ``path`` that were killed have left beside it."""
    return [*path.parent.glob(f".{glob.escape(path.name)}.*.tmp")]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it when the block ends well, and gone when it does not."""
    temporary = beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # of a full disk nobody says where
            error.filename = str(path)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def also(path: Path, other: Path) -> None:
    """Let what stands at ``path`` stand at ``other``, too, in the place of what was there; both are whole at all times."""
    temporary = beside(other)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(path, temporary)
    os.replace(temporary, other)
    temporary.unlink(missing_ok=True)  # to rename a link to the same file is to do nothing


def write_whole(path: Path, data: bytes) -> None:
    """Write a file with the permissions that the umask gives; whatever fails, the file that was there survives.

    Raises:
        UsageError: there is no such folder, or a folder has this name.
        OSError: the disk is full, or the folder may not be written to.
    """
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise UsageError(f"{path} {reason}; give the path of a file")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
