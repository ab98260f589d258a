"""Generated code of a whole network: which layers have some, compiled at once, or written out for a reader."""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from campfire.compress.recording import record
from campfire.errors import UsageError
from campfire.kernels import KERNELS
from campfire.kernels.codegen.index import Filters, PatternIndex
from campfire.kernels.codegen.kernel import CodegenPasses
from campfire.kernels.codegen.tuning import tune
from campfire.mask import Mask
from campfire.native import generated
from campfire.native.compilers import BuildFailed
from campfire.nn import SparseConv2d
from campfire.nn.conv import why_not_conv


@dataclass(frozen=True)
class Patterned:
    """A layer that code is generated for: the index and the tiles of its passes."""

    name: str
    shape: tuple[int, ...]  # [K, C, R, S]
    size: tuple[int, ...]  # of its input, [N, C, H, W]
    passes: dict[str, Filters]
    indices: tuple[PatternIndex, PatternIndex]

    def __str__(self) -> str:
        k, c, r, s = self.shape
        return f"{self.name} ({c}->{k} {r}x{s} @{self.size[2]}x{self.size[3]})"

    @property
    def figures(self) -> dict[str, Any]:
        """Patterns, the part of kernels that live, and bytes of what the forward pass reads beside the values (FKW)."""
        ahead = self.passes["forward"]
        kernels = ahead.entry.numel()
        alive = kernels / (self.shape[0] * self.shape[1])
        return {"patterns": len(ahead.tiles.patterns), "kernels": kernels, "alive": alive, "index_bytes": ahead.nbytes}


@dataclass
class Sources:
    """The sources of a network: each text with the layers and passes that it serves, and why other layers have none."""

    layers: list[Patterned] = field(default_factory=list)
    why_not: dict[str, list[str]] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, list[str]]:
        """Every text once -> whom it serves: layers with the same book and tile share."""
        found: dict[str, list[str]] = {}
        for layer in self.layers:
            for name, filters in layer.passes.items():
                found.setdefault(filters.tiles.source(), []).append(f"{layer}, {name}")
        return found

    def compile(self) -> dict[str, Any]:
        """Compile all that is not in the cache; a text that fails is named in ``failed``, and by a warning."""
        texts, start = self.texts, time.perf_counter()
        generated.libraries("patterns", [(text, serves[0]) for text, serves in texts.items()])
        sizes = [generated.size_of("patterns", text) for text in texts]
        failed = [serves for serves, size in zip(texts.values(), sizes, strict=True) if size is None]
        return {
            "sources": len(texts),
            "source_bytes": sum(map(len, texts)),
            "library_bytes": sum(filter(None, sizes)),
            "seconds": round(time.perf_counter() - start, 2),
            "failed": [layer for serves in failed for layer in serves],
        }

    def tune(self) -> dict[str, dict[str, dict[str, float]]]:
        """Time tiles for every layer: how many times faster each is than the model's choice, by layer and pass.

        The choice is kept for this machine; indices that were made before stay as they are.
        """
        return {layer.name: tune(*layer.indices) for layer in self.layers}

    def emit(self, folder: Path) -> list[Path]:
        """Write every text, with the headers it includes, into an empty or a new folder.

        Raises:
            UsageError: the folder is not empty, or is no folder.
        """
        require_empty(folder)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {layer.passes[p].tiles.source(): layer.passes[p].tiles for layer in self.layers for p in layer.passes}
        for number, (text, serves) in enumerate(self.texts.items()):
            about = "\n".join(
                ["It serves:", *(f"  {who}" for who in serves), *_command(f"patterns_{number}.cpp", text)]
            )
            (folder / f"patterns_{number}.cpp").write_text(texts[text].source(about))
        headers = {name: content for text in texts for name, content in generated.headers(text).items()}
        for name, content in headers.items():
            (folder / name).write_bytes(content)
        return sorted(folder.iterdir())


def require_empty(folder: Path) -> None:
    """Raise `UsageError` where something is there already."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; give a new or an empty folder")
    if folder.is_dir() and (there := sorted(path.name for path in folder.iterdir())):
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UsageError(f"{folder} is not empty ({there[0]}{more}); give a new or an empty folder")


def sources(model: nn.Module, masks: Mapping[str, Mask], x: Tensor) -> Sources:
    """What is generated for a network whose dense layers have these masks, on images like x [N, C, H, W]."""
    modules, found = dict(model.named_modules()), Sources()
    sizes = {visit.name: visit.size for visit in record(model, x[:1])}
    for name, mask in masks.items():
        module = modules[name]
        if not isinstance(module, nn.Conv2d):
            found.why_not[name] = [f"it is a {type(module).__name__}, and code is generated for Conv2d"]
            continue
        reasons = why_not_conv(module) or (
            [] if name in sizes else ["no call of it was seen, with its input as the first argument"]
        )
        if reasons:
            found.why_not[name] = reasons
            continue
        sparse = SparseConv2d.of(module, mask, kernel="reference")
        packed, conv = sparse.packed, sparse.conv
        if reasons := KERNELS["codegen"].why_not(packed, conv, torch.float32, torch.device("cpu")):
            found.why_not[name] = reasons
            continue
        prepared = KERNELS["codegen"].prepare(packed, conv)
        assert isinstance(prepared, CodegenPasses)
        size = (len(x), *sizes[name][1:])
        indices = prepared.indices(size)
        passes = {"forward": indices[0].ahead, "d_input": indices[1].back}
        found.layers.append(Patterned(name, packed.shape, size, passes, indices))
    return found


def _command(name: str, text: str) -> list[str]:
    """How it is compiled here."""
    try:
        build = generated.build_of("patterns", text)
    except BuildFailed:
        return []
    return [f"Compiled by {shlex.join([*build.compiler.command, *build.flags, name])} -o NAME.so"]
