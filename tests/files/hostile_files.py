"""Files that are not what they should be, each with the words of its refusal."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import safetensors.torch
import torch
from file_models import pruned
from torch import Tensor

import campfire
from campfire.files.loading import read
from campfire.files.saving import Claim, claims_of, save_state, to_bytes
from campfire.files.survivors import Scaled, of_codes
from campfire.mask import Mask
from campfire.quantise import Codes, named
from campfire.quantise.base import encode

Change = Callable[[dict[str, Any], dict[str, Any]], None]
Attempt = tuple[Callable[[], object], str]


def a_file(values: str | None = None, seed: int = 0) -> bytes:
    """A layer with cells, patterns and an index, and another tensor."""
    keep = torch.zeros(16, 8, 3, 3, dtype=torch.bool)
    keep.view(-1, 9)[::3, [0, 4]] = True
    keep.view(-1, 9)[1::3, [3, 5]] = True
    weight = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(seed)) * keep
    codes = None if values is None else encode(named(values), weight, keep)
    claim = Claim(Mask(keep), values=None if codes is None else of_codes(codes))
    return to_bytes({"w": weight, "b": torch.arange(4.0)}, {"w": claim})[0]


def edited(data: bytes, change: Change, body: bytes | None = None) -> bytes:
    """With another header: ``change`` is given the header, and what is said of the layers."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = json.loads(header["__metadata__"]["campfire"])
    change(header, about)
    if isinstance(header.get("__metadata__"), dict) and "campfire" in header["__metadata__"]:
        header["__metadata__"]["campfire"] = json.dumps(about)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + (data[8 + size :] if body is None else body)


def layer(**values: Any) -> Change:
    return lambda header, about: about["layers"]["w"].update(values)


def tensor(name: str, **values: Any) -> Change:
    return lambda header, about: header[name].update(values)


def about(**values: Any) -> Change:
    return lambda header, about: about.update(values)


CASES = {
    "a future version": (about(version=2), "its format is version 2, and this campfire reads 1; install a later one"),
    "no version": (about(version="1"), "metadata are not those of a campfire file"),
    "metadata too many": (about(more=1), "metadata are not those of a campfire file"),
    "a foreign file": (lambda h, a: h["__metadata__"].pop("campfire"), "not of campfire's; `campfire import` reads it"),
    "metadata of numbers": (lambda h, a: h["__metadata__"].update(x=1), "metadata are not pairs of strings"),
    "another checksum": (about(checksum="0" * 64), "checksum is another"),
    "a layer that is not there": (lambda h, a: a["layers"].update(v=a["layers"]["w"]), "'v' needs the parts"),
    "a tensor twice": (lambda h, a: h.update({"w": h.pop("b")}), "'w' is there twice"),
    "a part too many": (lambda h, a: h.update({"w:more": h.pop("b")}), "'w' needs the parts"),
    "a part too few": (lambda h, a: h.update({"x": h.pop("w:book")}), "'w' needs the parts"),
    "negative sizes": (layer(shape=[-16, -8, 3, 3]), "a shape is 2 or 4 whole numbers"),
    "sizes of truth": (layer(unit=[True, 1, 1, 1]), "a shape is 2 or 4 whole numbers"),
    "a bomb": (layer(shape=[1 << 12, 1 << 11, 3, 3]), "would take 301,989,904 bytes, more than"),
    "a larger bomb": (layer(shape=[1 << 30, 1 << 30, 1 << 30, 1 << 30]), r"a weight has 1 to 2\^31 numbers"),
    "another shape": (layer(shape=[8, 8, 3, 3]), "points outside its 64 units"),
    "a unit of nothing": (layer(unit=[0, 1, 1, 1]), "does not fit"),
    "a unit larger than the weight": (layer(unit=[1, 1, 4, 1]), "does not fit"),
    "a cell of nothing": (layer(cell=0), "and unit and cell 4"),
    "cells that do not divide": (layer(cell=[1, 3, 3, 3]), "do not divide"),
    "cells of everything": (layer(cell=[16, 8, 1, 1]), "a cell has 64 units at most"),
    "more patterns": (layer(patterns=3), "book has 3 bytes; 27 numbers of 1 bits take another size"),
    "a million patterns": (layer(patterns=10**6), "a book has 65536 patterns at most"),
    "low bits without any": (layer(low=2), "'w' needs the parts"),
    "a claim that is not held": (layer(structure="kernel"), "claims to be 'kernel', and is not: some units"),
    "a claim of a huge block": (layer(structure="block:n=99999999"), "an option is larger than any side"),
    "a claim without end": (layer(structure="x" * 300), "spelled in 200 letters"),
    "a claim to the terminal": (layer(structure="\x1b[2J"), "structure a text"),
    "values of whole numbers": (tensor("w:value", dtype="I32"), "values are floating point; got I32"),
    "an unknown type": (tensor("b", dtype="F7"), "a type that is not served: 'F7'"),
    "a type that is a list": (tensor("b", dtype=["F32"]), "a type that is not served"),
    "offsets of the header": (tensor("b", data_offsets=[-8, 8]), "no whole numbers"),
    "offsets behind the end": (tensor("b", data_offsets=[0, 10**9]), "does not lie within the file"),
    "another size than its shape": (tensor("b", shape=[5]), "of another size than its shape"),
    "a shape that overflows": (tensor("b", shape=[2**62, 2**62, 0]), "no whole numbers"),
    "a shape of many axes": (tensor("b", shape=[1] * 17), "no whole numbers"),
    "sizes of half a number": (tensor("b", shape=[1.5]), "no whole numbers"),
    "offsets of three": (tensor("b", data_offsets=[0, 16, 16]), "no whole numbers"),
    "a tensor that is a number": (lambda h, a: h.update(b=3), "is not told by dtype, shape and data_offsets"),
    "a tensor with more to tell": (tensor("b", more=1), "is not told by dtype, shape and data_offsets"),
    "metadata that are a number": (lambda h, a: h.update(__metadata__=3), "metadata are not pairs of strings"),
    "a checksum that is a number": (about(checksum=5), "metadata are not those of a campfire file"),
    "layers in a list": (about(layers=[]), "metadata are not those of a campfire file"),
    "another version": (about(version=0), "metadata are not those of a campfire file"),
    "a layer that is a number": (lambda h, a: a["layers"].update(w=3), "'w' is not told by shape and unit"),
    "a layer with more to tell": (layer(more=1), "'w' is not told by shape and unit"),
    "three axes": (layer(shape=[16, 8, 3]), "a shape is 2 or 4 whole numbers"),
    "no weights": (layer(shape=[0, 8, 3, 3]), r"a weight has 1 to 2\^31 numbers"),
    "fewer than no low bits": (layer(low=-1), "patterns and low are whole numbers"),
    "a claim of a number": (layer(structure=3), "structure a text"),
    "a unit of three axes": (layer(unit=[1, 1, 1]), "does not fit"),
    "a cell of three axes": (layer(cell=[1, 1, 1]), "do not divide"),
}  # fmt: skip

CONTAINERS: list[tuple[bytes, str]] = [
    (b"", "truncated, or no safetensors file"),
    (b"\xff" * 64, "truncated, or no safetensors file"),
    (b"PK\x03\x04" + bytes(100), "truncated, or no safetensors file"),
    (b"\x02" + bytes(7) + b"[]", "no JSON object"),
    (b"\x09" + bytes(7) + b'{"a":1,"a"', "truncated, or no|no JSON"),
    (b"\x0f" + bytes(7) + b'{"a": 1, "a":2}', "a name twice"),
    ((10**6).to_bytes(8, "little") + b"[" * 10**6, "more brackets than tensors need"),
    ((15).to_bytes(8, "little") + b'{"\\ud800":   1}', "no name of a tensor"),
]  # fmt: skip


# --- parts of a layer that do not fit the others ---------------------------------------------------------------------


def with_parts(data: bytes, about: dict[str, Any] | None = None, **parts: Tensor) -> bytes:
    """With other parts of the layer w, and something else said of it."""
    tensors = safetensors.torch.load(data)
    size = int.from_bytes(data[:8], "little")
    told = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["campfire"])
    told["layers"]["w"] |= about or {}
    tensors |= {f"w:{part}": value for part, value in parts.items()}
    return safetensors.torch.save(tensors, {"campfire": json.dumps(told)})


def bytes_of(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.uint8)


def scattered() -> bytes:
    """Four of 640 weights, far apart: gaps with low bits; 0, 200, 400, 600."""
    weight = torch.zeros(64, 10)
    weight.view(-1)[::200] = 1
    return to_bytes({"w": weight}, {"w": Claim(Mask(weight.view(64, 10, 1, 1) != 0))})[0]


def ordered() -> bytes:
    """Outputs of two kinds, brought together."""
    weight = torch.zeros(32, 32)
    weight[::2, :7] = weight[1::2, 20:31] = 1
    return to_bytes({"w": weight}, {"w": Claim(Mask(weight.view(32, 32, 1, 1) != 0))})[0]


def three_patterns() -> bytes:
    """Numbers of patterns in two bits, of which one is free."""
    weight = torch.zeros(9, 7, 3, 3)
    for i, taps in enumerate(([0, 1], [1, 5], [3, 7])):
        weight.view(-1, 9)[i::3, taps] = 1
    return to_bytes({"w": weight}, {"w": Claim(Mask(weight != 0))})[0]


def damaged() -> Iterator[tuple[bytes, str]]:
    """Files of which one part is wrong."""
    file, int8, book = a_file(), a_file("int8"), a_file("codebook:3")
    yield file[:-1], "does not lie within the file"
    yield file + b"\0", "bytes at its end belong to no tensor"
    yield (
        edited(file, lambda h, a: h["b"].update(data_offsets=[h["w:value"]["data_offsets"][0]] * 2, shape=[0])),
        "overlap, or",
    )
    truth = to_bytes({"t": torch.tensor([True, False])}, {})[0]
    yield truth[:-2] + b"\2\0", "truth values other than 0 and 1"
    for index in (torch.zeros(4, dtype=torch.int32), torch.zeros(4, 4, dtype=torch.uint8)):
        yield with_parts(file, index=index), "index is U8 with one axis"
    yield with_parts(file, scale=torch.ones(16), codebook=torch.ones(2)), "'w' needs the parts"
    yield with_parts(file, index=torch.zeros(10**4, dtype=torch.uint8)), "its index has 10000 bytes, too many"
    yield (
        with_parts(file, index=torch.full((16,), 255, dtype=torch.uint8), value=torch.ones(9)),
        "units, and there are values",
    )
    yield with_parts(file, book=bytes_of(0, 0b01000000, 0)), "rows of a book do not rise"
    yield with_parts(file, book=bytes_of(0b10001000, 0b01000100, 0)), "rows of a book do not rise"
    yield with_parts(file, book=bytes_of(255, 255, 255)), "the bits left over in book are not zero"
    yield with_parts(three_patterns(), pattern=bytes_of(*[255] * 6)), "left over in pattern"
    yield (
        with_parts(three_patterns(), pattern=bytes_of(*[255] * 5, 0b11000000)),
        "not among the 3",
    )
    assert safetensors.torch.load(scattered())["w:low"].numel()
    yield with_parts(scattered(), {"low": 31}), "a gap has 30 low bits at most"
    yield with_parts(scattered(), index=bytes_of(0, 0b00001111)), "points outside its 640 units"
    yield with_parts(scattered(), index=bytes_of(0b00010001, 0b00010001)), "points outside its 640 units"
    yield with_parts(ordered(), order=torch.zeros(32, dtype=torch.uint8)), "order is not a permutation"
    yield with_parts(file, value=torch.ones(173)), "weights live, and its values are"
    yield (
        with_parts(int8, value=torch.ones(len(kept()), dtype=torch.uint8)),
        "8-bit values are I8 with 16 scales in F32",
    )
    yield with_parts(int8, scale=torch.ones(16, dtype=torch.float16)), "8-bit values are I8 with 16 scales in F32"
    yield with_parts(int8, scale=torch.ones(15)), "8-bit values are I8 with 16 scales in F32"
    yield with_parts(int8, scale=torch.full((16,), float("nan"))), "a scale is negative, not a number"
    yield with_parts(book, value=kept().to(torch.int8)), "a codebook has 1 to 256 floating-point entries"
    yield with_parts(book, codebook=torch.arange(8)), "a codebook has 1 to 256 floating-point entries"
    yield with_parts(book, codebook=torch.ones(8, 1)), "a codebook has 1 to 256 floating-point entries"
    yield with_parts(book, codebook=torch.ones(0)), "a codebook has 1 to 256 floating-point entries"
    yield with_parts(book, codebook=torch.full((8,), float("inf"))), "an entry of the codebook is infinite"
    ones = torch.full((-(-len(kept()) * 3 // 8),), 255, dtype=torch.uint8)
    ones[-1] = 0
    yield with_parts(book, codebook=torch.ones(5), value=ones), "a value is not among the 5 of its codebook"


def kept() -> Tensor:
    """As many ones as weights live in `a_file`."""
    return torch.ones(2 * 43 + 2 * 43, dtype=torch.uint8)


# --- what cannot be written ------------------------------------------------------------------------------------------


def unwritable() -> Iterator[Attempt]:
    """Models, claims and paths that `save` refuses."""
    eye = torch.eye(32)
    mask = Mask(eye.view(32, 32, 1, 1) != 0)
    yield lambda: read("nowhere"), "there is no file nowhere"
    yield lambda: campfire.save("nowhere/x", {"x": torch.zeros(2, dtype=torch.complex64)}), "a file holds tensors of"
    yield lambda: campfire.save("nowhere/x", {"x": 3}), "a file holds tensors of"  # pyright: ignore[reportArgumentType]
    yield lambda: campfire.save("nowhere/x", {"a\nb": torch.zeros(2)}), "a name in a file is printable"
    yield (
        lambda: to_bytes({"w": eye, "w:value": torch.zeros(2)}, {"w": Claim(mask)}),
        "what a part of a packed weight is called",
    )
    few = Scaled(np.ones(4, np.int8), np.ones(32, np.float32))
    yield lambda: to_bytes({"w": eye}, {"w": Claim(mask, values=few)}), "32 weights live, and 4 values were given"
    codes = encode(named("int8"), eye.view(32, 32, 1, 1), mask.keep)
    yield (
        lambda: save_state(Path("nowhere/x"), {"w": eye}, {}, {"w": codes}),
        "codes are given for w, and no mask is known",
    )
    wide = Codes(torch.zeros(32, dtype=torch.uint8), torch.tensor([1e6]), 2)
    yield (
        lambda: save_state(Path("nowhere/x"), {"w": eye.half()}, {"w": Claim(mask)}, {"w": wide}),
        r"finite entries; 1e\+06 is none as F16",
    )
    model, pruner = pruned()
    other = {**model.state_dict(), "3.weight": torch.zeros(1, 1, 3, 3)}
    yield lambda: claims_of(other, other, pruner), "the pruner is of another model"
    alone = {name: x for name, x in other.items() if name != "3.weight"}
    yield lambda: claims_of(alone, alone, pruner), "the pruner is of another model"
    alive = {**model.state_dict(), "3.weight": torch.ones(32, 16, 3, 3)}
    yield lambda: claims_of(alive, alive, pruner), "are not zero where its mask says so"
    broken = Mask(torch.eye(9).view(9, 1, 3, 3) != 0)
    liar: Any = SimpleNamespace(masks={"c": broken}, layers={"c": SimpleNamespace(structure="kernel")})
    state = {"c.weight": torch.eye(9).view(9, 1, 3, 3)}
    yield lambda: claims_of(state, state, liar), "the mask of 'c.weight' is no 'kernel'"
