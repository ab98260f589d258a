"""The ordinary state dict, zeros included: .safetensors or .pt."""

from io import BytesIO
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from campfire.export.base import Format, Subject
from campfire.files.writing import write_whole


class Dense(Format):
    """What any program that knows the model can load."""

    name, suffixes = "dense", (".safetensors", ".pt", ".pth")
    summary = "the ordinary state dict, zeros included"

    def write(self, subject: Subject, path: Path, **options: Any) -> dict[str, Any]:
        state = {name: t.detach().cpu().contiguous().clone() for name, t in subject.model.state_dict().items()}
        if path.suffix == ".safetensors":
            write_whole(path, safetensors.torch.save(state))
        else:
            file = BytesIO()
            torch.save(state, file)
            write_whole(path, file.getvalue())
        return {
            "weights": sum(t.numel() for t in state.values()),
            "zeros": sum(int((t == 0).sum()) for t in state.values()),
        }
