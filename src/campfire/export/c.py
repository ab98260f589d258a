"""c: one C file that needs nothing but the standard library, its header, and the weights beside it; for one image."""

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from campfire.errors import CampfireError
from campfire.export.base import Format, Subject, difference
from campfire.export.c_code import Code, code
from campfire.export.c_steps import program
from campfire.files.writing import replacing

FLAGS = ("-std=c99", "-O2", "-shared", "-fPIC")


class C(Format):
    """``int campfire_run(const float *image, float *result)``, after ``campfire_load(path)`` or ``campfire_use(memory, bytes)``."""

    name, suffixes = "c", (".c",)
    summary = "one C file with its header and weights, for one image; sparse layers stay sparse"

    def why_not(self, subject: Subject, path: Path) -> list[str]:
        reasons = super().why_not(subject, path)
        if not path.stem.isidentifier():
            reasons.append(f"its name goes into C, so it is a word; got {path.stem!r}")
        return reasons

    def write(self, subject: Subject, path: Path, **options: Any) -> dict[str, Any]:
        model, x = subject.dense(), subject.example()
        written = code(program(model, x[:1]), path.stem)
        with tempfile.TemporaryDirectory(prefix="campfire-c-") as folder:
            _write(written, Path(folder), path.stem)
            found = _checked(Path(folder), path.stem, model, x)
        with replacing(path) as c, replacing(path.with_suffix(".h")) as h, replacing(path.with_suffix(".bin")) as b:
            c.write_text(written.source)
            h.write_text(written.header)
            b.write_bytes(written.blob)
        told = {"weights_bytes": len(written.blob), "memory_bytes": written.memory, "layers": written.layers}
        return {**told, **found}


def _write(written: Code, folder: Path, stem: str) -> None:
    for ending, content in ((".c", written.source.encode()), (".h", written.header.encode()), (".bin", written.blob)):
        (folder / (stem + ending)).write_bytes(content)


def _checked(folder: Path, stem: str, model: torch.nn.Module, x: Tensor) -> dict[str, Any]:
    """What it makes of images, beside the model; unchecked where there is no C compiler."""
    if (cc := shutil.which("cc")) is None:
        return {"checked_by": None, "max_abs_difference": None}
    library = folder / "library.so"
    done = subprocess.run(
        [cc, *FLAGS, str(folder / f"{stem}.c"), "-o", str(library), "-lm"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CampfireError(f"{cc} refuses what was generated; nothing was written: {done.stderr.strip()[-500:]}")
    with torch.no_grad():
        shape = model(x[:1]).shape[1:]
    run = Library(library, folder / f"{stem}.bin", shape.numel())
    found = difference(OneByOne(model), x, lambda images: run(images).view(-1, *shape), "the C program")
    return {"checked_by": "cc", **found}


class OneByOne(torch.nn.Module):
    """A network on one image after another, as a batch: it may serve one alone."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.model(image) for image in x.split(1)])


class Library:
    """A compiled export: images [N, C, H, W] to [N, ``results``], one after the other.

    Raises:
        CampfireError: it refuses its weights.
    """

    def __init__(self, library: Path, weights: Path, results: int):
        self._results = results
        self._code = ctypes.CDLL(str(library))
        if failed := self._code.campfire_load(str(weights).encode()):
            raise CampfireError(f"the C program refuses {weights.name} (code {failed})")

    def __call__(self, x: Tensor) -> Tensor:
        results = []
        for image in x.contiguous():
            result = torch.empty(self._results)
            failed = self._code.campfire_run(ctypes.c_void_p(image.data_ptr()), ctypes.c_void_p(result.data_ptr()))
            assert not failed, failed
            results.append(result)
        return torch.stack(results)
