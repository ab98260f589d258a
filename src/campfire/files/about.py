"""What a file says of itself: its version, its checksum, and how each packed weight is stored."""

import math
from collections.abc import Mapping
from typing import Any

from campfire.errors import CheckpointError
from campfire.files.coded import Coded
from campfire.files.container import Stored, read_json, whole_numbers

VERSION = 1
KEY = "campfire"  # of the metadata
MASK = ("index", "low", "pattern", "book", "order")  # parts of a mask
FREE = {"index", "order", "scale", "codebook"}  # parts that may be there
ENTRIES = {"shape", "unit", "cell", "patterns", "low", "structure"}


def read_about(metadata: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], str]:
    """What is said of each layer, and the checksum."""
    if KEY not in metadata:
        raise CheckpointError("it is a safetensors file, but not of campfire's; `campfire import` reads it")
    about = read_json(metadata[KEY].encode("utf-8", "surrogatepass"))
    version = about.get("version")
    if type(version) is int and version > VERSION:
        raise CheckpointError(
            f"its format is version {version}, and this campfire reads {VERSION}; install a later one"
        )
    if version != VERSION or set(about) != {"version", "checksum", "layers"}:
        raise CheckpointError("its metadata are not those of a campfire file")
    layers, wanted = about["layers"], about["checksum"]
    if not isinstance(wanted, str) or not isinstance(layers, dict):
        raise CheckpointError("its metadata are not those of a campfire file")
    return layers, wanted


def read_coded(name: str, about: Any, parts: Mapping[str, Stored]) -> Coded:
    """The mask's parts, of the right types."""
    if not isinstance(about, dict) or not {"shape", "unit"} <= set(about) <= ENTRIES:
        raise CheckpointError(f"{name!r} is not told by shape and unit")
    shape, unit, cell = about["shape"], about["unit"], about.get("cell")
    lists = (shape, unit, [] if cell is None else cell)
    if not all(whole_numbers(x, 2**31) for x in lists) or len(shape) not in (2, 4):
        raise CheckpointError(f"{name!r}: a shape is 2 or 4 whole numbers, and unit and cell 4")
    if not 0 < math.prod(shape) < 2**31:
        raise CheckpointError(f"{name!r}: a weight has 1 to 2^31 numbers; got {shape}")
    numbers = about.get("patterns", 0), about.get("low", 0)
    structure = about.get("structure", "")
    if not whole_numbers(list(numbers)) or not isinstance(structure, str) or not structure.isprintable():
        raise CheckpointError(f"{name!r}: patterns and low are whole numbers, and structure a text")
    patterns, low = numbers
    _require_parts(name, set(parts), _wanted(patterns, low, cell is not None))
    for part in MASK:
        if part in parts and (len(parts[part].shape) != 1 or parts[part].dtype not in _types(part)):
            raise CheckpointError(f"{name!r}: {part} is {' or '.join(_types(part))} with one axis")
    held = {part: parts[part].bits for part in MASK if part in parts}
    whole = (*shape, 1, 1)[:4]
    return Coded(whole, tuple(unit), None if cell is None else tuple(cell), patterns, low, held)


def _wanted(patterns: int, low: int, celled: bool) -> set[str]:
    """The parts that there must be."""
    there = {"value": True, "low": low > 0, "book": celled, "pattern": patterns > 1}
    return {part for part, is_there in there.items() if is_there}


def _require_parts(name: str, given: set[str], wanted: set[str]) -> None:
    if not wanted <= given <= wanted | FREE or {"scale", "codebook"} <= given:
        raise CheckpointError(f"{name!r} needs the parts {', '.join(sorted(wanted))}; got {', '.join(sorted(given))}")


def _types(part: str) -> tuple[str, ...]:
    return ("U8", "U16", "U32") if part == "order" else ("U8",)
