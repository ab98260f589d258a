"""torch.export: the traced program of the dense network, for any batch size."""

from pathlib import Path
from typing import Any

import torch

from campfire.errors import CampfireError
from campfire.export.base import Format, Subject, difference, require_pixels
from campfire.files.writing import replacing


class Pt2(Format):
    """Loaded by ``torch.export.load(path).module()``, without campfire."""

    name, suffixes, options = "pt2", (".pt2",), ("pixels",)
    summary = "torch.export's program, dense with zeros; any batch size"

    def write(self, subject: Subject, path: Path, pixels: bool = False, **options: Any) -> dict[str, Any]:
        if reasons := require_pixels(subject, pixels):
            raise CampfireError(reasons[0])
        model, x = subject.dense(pixels), subject.example(pixels)
        try:
            program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        except Exception as error:  # tracing raises anything at all
            line = str(error).strip().partition("\n")[0]
            raise CampfireError(f"torch.export cannot trace {type(subject.model).__name__}: {line}") from error
        with replacing(path) as temporary:
            part = temporary.with_suffix(".pt2")  # torch wants the name
            try:
                torch.export.save(program, part)
                loaded = torch.export.load(part).module()
                found = difference(model, torch.cat([x, x[:1]]), loaded, "the exported program")
                part.replace(temporary)
            finally:
                part.unlink(missing_ok=True)
        return {"checked_by": "torch.export.load", **found}
