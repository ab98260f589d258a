"""Export: every module in this folder that names a format registers it; adding a format is adding a file."""

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from campfire.errors import DoesNotFit, UnknownName, UsageError
from campfire.export.base import REGISTRY, Format, Subject

__all__ = ["REGISTRY", "Format", "Subject", "export"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")


def export(subject: Subject, path: str | Path, format: str, **options: Any) -> dict[str, Any]:
    """Write a network in a format that other programs read, whole or not at all, and say what was checked.

    Args:
        subject: the network and what it takes.
        path: the file.
        format: a name in `REGISTRY`: onnx, pt2, dense, packed, ...
        options: of the format.

    Returns:
        ``format``, ``path``, ``bytes``, and what the format found: the largest difference it makes, parts that are sparse.

    Raises:
        UnknownName: no such format or option.
        DoesNotFit: the format cannot hold this network, with every reason.
        CampfireError: what was written computes something else; then there is no file.

    >>> import tempfile
    >>> import torch
    >>> net = Subject(torch.nn.Linear(4, 2), torch.randn(1, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     export(net, f"{folder}/net.pt", "dense")["weights"]
    10
    """
    if format not in REGISTRY:
        raise UnknownName("export format", format, REGISTRY)
    wanted, path = REGISTRY[format], Path(path)
    if strangers := [name for name in options if name not in wanted.options]:
        raise UnknownName(f"option of format {format!r}", strangers[0], wanted.options or ["(it has none)"])
    if path.is_dir() or not path.parent.is_dir():
        reason = "is a folder" if path.is_dir() else f"cannot be written: there is no folder {path.parent}"
        raise UsageError(f"{path} {reason}; give the path of a file")
    if reasons := wanted.why_not(subject, path):
        raise DoesNotFit(f"format {format!r}", str(path), reasons)
    found = wanted.write(subject, path, **options)
    return {"format": format, "path": str(path), "bytes": path.stat().st_size, **found}
