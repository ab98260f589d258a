"""load: a file's dense state dict; every number in it is checked before anything is made of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from campfire.errors import CheckpointError, UsageError
from campfire.files.about import read_about, read_coded
from campfire.files.checksum import checksum
from campfire.files.claims import why_not_held
from campfire.files.coded import Coded, decode
from campfire.files.container import SIZES, Bits, Stored, parse, to_tensor
from campfire.files.sizes import LayerSize, Sizes
from campfire.files.survivors import Survivors, most_values, read_values
from campfire.mask import Mask

EXPANSION, HARMLESS = 100, 2**26  # a file may grow by so much, or to so many bytes


@dataclass(frozen=True)
class Loaded:
    """What a file holds. ``masks`` and ``structures`` (as claimed, and true) are by the weights' names in the state dict."""

    state: dict[str, Tensor]  # dense
    masks: dict[str, Mask]
    structures: dict[str, str]
    sizes: Sizes


def load(path: str | Path, limit: int | None = None) -> dict[str, Tensor]:
    """The dense state dict that `save` wrote, on the CPU, equal bit for bit where weights live.

    Weights that were written in ``int8`` are float32 whatever they were: the file does not say. ``load_state_dict`` and
    `load_` convert them to what the model has.

    Nothing in a file is run. It is refused if any part does not fit the others, if its checksum is another, or if its
    tensors would take more than ``limit`` bytes.

    Args:
        limit: bytes of dense tensors; by default 100 times the file, or 64 MiB where that is more.

    Raises:
        UsageError: there is no such file.
        CheckpointError: it is truncated, damaged, of a later version, too large, or no campfire file.

    >>> import tempfile
    >>> from campfire.files import save
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save(f"{folder}/x.campfire", {"w": torch.eye(16)})
    ...     torch.equal(load(f"{folder}/x.campfire")["w"], torch.eye(16))
    True
    """
    return read(path, limit).state


def read(path: str | Path, limit: int | None = None) -> Loaded:
    """As `load`, with the masks, the structures that were claimed, and the bytes of all parts."""
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        return from_bytes(path.read_bytes(), limit)
    except CheckpointError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from None


def from_bytes(data: bytes, limit: int | None = None) -> Loaded:
    """The contents of a file."""
    tensors, metadata = parse(data)
    layers, wanted = read_about(metadata)
    parts: dict[str, dict[str, Stored]] = {name: {} for name in layers}
    others = {}
    for name, stored in tensors.items():
        layer, _, part = name.rpartition(":")
        if layer in layers:
            parts[layer][part] = stored
        else:
            others[name] = stored
    if double := sorted(set(layers) & set(others)):
        raise CheckpointError(f"{double[0]!r} is there twice, packed and as it is")
    codes = {name: read_coded(name, layers[name], parts[name]) for name in layers}
    _require_room(codes, parts, others, max(EXPANSION * len(data), HARMLESS) if limit is None else limit)
    return _decoded(codes, parts, others, layers, wanted, len(data))


def _require_room(
    codes: Mapping[str, Coded], parts: Mapping[str, dict[str, Stored]], others: Mapping[str, Stored], limit: int
) -> None:
    room = sum(x.data.nbytes for x in others.values())
    for name, coded in codes.items():
        held = parts[name]
        kind = held["codebook"].dtype if "codebook" in held else held["value"].dtype
        room += math.prod(coded.shape) * (4 if "scale" in held else SIZES[kind])
    if room > limit:
        raise CheckpointError(
            f"its tensors would take {room:,} bytes, more than {limit:,}; if you trust it, give load(limit={room})"
        )


# --- what is there ---------------------------------------------------------------------------------------------------


def _decoded(
    codes: Mapping[str, Coded],
    parts: Mapping[str, dict[str, Stored]],
    others: Mapping[str, Stored],
    layers: Mapping[str, dict[str, Any]],
    wanted: str,
    total: int,
) -> Loaded:
    state = {name: stored.tensor() for name, stored in others.items()}
    dense: list[tuple[str, str, tuple[int, ...], Bits]] = [(n, x.dtype, x.shape, x.bits) for n, x in others.items()]
    masks, rows = {}, []
    for name, coded in codes.items():
        shape = tuple(layers[name]["shape"])
        try:
            masks[name], values, bits = _weight(coded, parts[name], layers[name].get("structure", ""))
        except CheckpointError as error:
            raise CheckpointError(f"{name!r}: {error}") from None
        state[name] = to_tensor(bits, values.dtype).view(shape)
        dense.append((name, values.dtype, shape, bits))
        held = {part: stored.data.nbytes for part, stored in parts[name].items()}
        rows.append(LayerSize(name, shape, len(values), values.dtype, values.name, held))
    if checksum(dense) != wanted:
        raise CheckpointError("its checksum is another: the file was damaged or put together from several")
    structures = {name: about["structure"] for name, about in layers.items() if "structure" in about}
    sizes = Sizes(rows, sum(stored.data.nbytes for stored in others.values()), total)
    return Loaded({name: state[name] for name in sorted(state)}, masks, structures, sizes)


def _weight(coded: Coded, parts: Mapping[str, Stored], structure: str) -> tuple[Mask, Survivors, Bits]:
    keep = decode(coded, most_values(parts))
    values = read_values(parts, keep)
    plan = {"order": torch.from_numpy(coded.parts["order"].astype("int64"))} if "order" in coded.parts else {}
    mask = Mask(torch.from_numpy(keep), plan)
    if structure and (reasons := why_not_held(structure, mask)):
        raise CheckpointError(f"it claims to be {structure!r}, and is not: {'; '.join(reasons)}")
    return mask, values, values.dense(keep)
