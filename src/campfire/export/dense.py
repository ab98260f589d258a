"""The ordinary state dict, zeros included: .safetensors or .pt."""

from pathlib import Path
from typing import Any

from campfire.export.base import Format, Subject
from campfire.files.dense import write_dense


class Dense(Format):
    """What any program that knows the model can load."""

    name, suffixes = "dense", (".safetensors", ".pt", ".pth")
    summary = "the ordinary state dict, zeros included"

    def write(self, subject: Subject, path: Path, **options: Any) -> dict[str, Any]:
        state = subject.model.state_dict()
        write_dense(path, state)
        return {
            "weights": sum(t.numel() for t in state.values()),
            "zeros": sum(int((t == 0).sum()) for t in state.values()),
        }
