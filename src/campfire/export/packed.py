"""The survivors alone: the file of `campfire.save`."""

from pathlib import Path
from typing import Any

from campfire.export.base import Format, Subject
from campfire.files import save
from campfire.quantise import named


class Packed(Format):
    """Bit by bit in docs/format.md."""

    name, options = "packed", ("values",)
    summary = "the survivors alone, as campfire compress writes them"

    def write(self, subject: Subject, path: Path, values: str | None = None, **options: Any) -> dict[str, Any]:
        sizes = save(path, subject.model, subject.pruner, None if values is None else named(values))
        return {"dense_bytes": sizes.dense, "packed_bytes": sizes.packed}
