"""Files that are not what they should be, and targets that cannot be written: one clear error, and nothing has changed."""

import errno
import importlib.util
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from file_models import net, pruned
from torch import nn

import campfire
from campfire.errors import CheckpointError, UsageError
from campfire.files import writing
from campfire.files.loading import from_bytes, read
from campfire.files.saving import Claim, to_bytes
from campfire.files.survivors import Scaled, of_codes
from campfire.mask import Mask
from campfire.quantise import named
from campfire.quantise.base import encode

ROOT = pathlib.Path(__file__).parents[2]


def a_file(values: str | None = None) -> bytes:
    """A layer with cells, patterns and an index, and another tensor."""
    keep = torch.zeros(16, 8, 3, 3, dtype=torch.bool)
    keep.view(-1, 9)[::3, [0, 4]] = True
    keep.view(-1, 9)[1::3, [3, 5]] = True
    weight = torch.randn(16, 8, 3, 3) * keep
    codes = None if values is None else encode(named(values), weight, keep)
    claim = Claim(Mask(keep), values=None if codes is None else of_codes(codes))
    return to_bytes({"w": weight, "b": torch.arange(4.0)}, {"w": claim})[0]


def edited(data: bytes, change: Callable[[dict[str, Any], dict[str, Any]], None], body: bytes | None = None) -> bytes:
    """With another header: ``change`` is given the header, and what is said of the layers."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    about = json.loads(header["__metadata__"]["campfire"])
    change(header, about)
    if "__metadata__" in header and "campfire" in header["__metadata__"]:
        header["__metadata__"]["campfire"] = json.dumps(about)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + (data[8 + size :] if body is None else body)


def layer(**values: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, about: about["layers"]["w"].update(values)


def tensor(name: str, **values: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda header, about: header[name].update(values)


def about(**values: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
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
    "a bomb": (layer(shape=[1 << 14, 1 << 13, 3, 3]), "would take 4,831,838,224 bytes, more than"),
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
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_changed_header_is_refused(case: str) -> None:
    change, says = CASES[case]
    with pytest.raises(CheckpointError, match=says):
        from_bytes(edited(a_file(), change), limit=10**6 if "bomb" not in case else None)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated, or no safetensors file"),
        (b"\xff" * 64, "truncated, or no safetensors file"),
        (b"PK\x03\x04" + bytes(100), "truncated, or no safetensors file"),
        (b"\x02" + bytes(7) + b"[]", "no JSON object"),
        (b"\x09" + bytes(7) + b'{"a":1,"a"', "truncated, or no|no JSON"),
        (b"\x0f" + bytes(7) + b'{"a": 1, "a":2}', "a name twice"),
        ((10**6).to_bytes(8, "little") + b"[" * 10**6, "more brackets than tensors need"),
        ((15).to_bytes(8, "little") + b'{"\\ud800":   1}', "no name of a tensor"),
    ],
)  # fmt: skip
def test_no_container(data: bytes, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        from_bytes(data)


def test_every_truncation_is_refused() -> None:
    data = a_file()
    for size in range(0, len(data), 7):
        with pytest.raises(CheckpointError):
            from_bytes(data[:size])
    with pytest.raises(CheckpointError, match="bytes at its end belong to no tensor"):
        from_bytes(data + b"\0")


def test_every_flipped_byte_of_the_data_is_found() -> None:
    for values in (None, "int8", "codebook:3"):
        data = a_file(values=values)
        for at in range(8 + int.from_bytes(data[:8], "little"), len(data)):
            with pytest.raises(CheckpointError):
                from_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def test_overlaps_and_gaps_are_refused() -> None:
    def overlap(header: dict[str, Any], about: dict[str, Any]) -> None:
        first, _ = header["w:value"]["data_offsets"]
        header["b"]["data_offsets"] = [first, first + 16]

    with pytest.raises(CheckpointError, match="overlap, or bytes between them"):
        from_bytes(edited(a_file(), overlap))


@pytest.mark.parametrize("scale", [float("nan"), -1.0, float("inf"), 3e38])
def test_scales_that_are_none(scale: float) -> None:
    keep = np.ones((2, 2, 1, 1), bool)
    values = Scaled(np.ones(4, np.int8), np.array([1.0, scale], np.float32))
    with np.errstate(over="ignore"):
        data = to_bytes({"w": torch.ones(2, 2)}, {"w": Claim(Mask(torch.from_numpy(keep)), values=values)})[0]
    with pytest.raises(CheckpointError, match="a scale is negative, not a number, or so large"):
        from_bytes(data)


def test_one_layer_of_each_of_two_files() -> None:
    torch.manual_seed(1)
    one, other = a_file(), a_file()
    mixed = one[: len(one) // 2] + other[len(one) // 2 :]
    with pytest.raises(CheckpointError, match="checksum is another"):
        from_bytes(mixed)


def test_a_small_file_may_grow_a_hundredfold_and_more_if_asked(tmp_path: pathlib.Path) -> None:
    weight = torch.zeros(64, 64)
    weight[0, 0] = 1
    campfire.save(tmp_path / "x", {"w": weight})
    with pytest.raises(CheckpointError, match=r"would take 16,384 bytes.* give load\(limit=16384\)"):
        campfire.load(tmp_path / "x", limit=1000)
    assert campfire.load(tmp_path / "x", limit=16384)["w"].equal(weight)


def test_another_model(tmp_path: pathlib.Path) -> None:
    campfire.save(tmp_path / "x.campfire", *pruned())
    other = nn.Sequential(*list(net())[:-1])
    before = {name: x.clone() for name, x in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"are of another model: 6.bias: not in this model; 6.weight: not in"):
        campfire.load_(other, tmp_path / "x.campfire")
    larger = net().append(nn.Linear(10, 2))
    with pytest.raises(CheckpointError, match=r"are of another model: 7.weight: missing"):
        campfire.load_(larger, tmp_path / "x.campfire")
    assert all(torch.equal(x, before[name]) for name, x in other.state_dict().items())


def test_a_pruner_of_another_model_and_weights_that_revived(tmp_path: pathlib.Path) -> None:
    model, pruner = pruned()
    with pytest.raises(UsageError, match=r"the pruner is of another model: it masks '3.weight'"):
        campfire.save(tmp_path / "x", nn.Sequential(nn.Conv2d(3, 8, 3)), pruner)
    with torch.no_grad():
        model[3].weight.fill_(1)
    with pytest.raises(UsageError, match=r"weights of '3.weight' are not zero .* call pruner.apply\(\) first"):
        campfire.save(tmp_path / "x", model, pruner)
    assert not list(tmp_path.iterdir())


def test_what_is_no_tensor(tmp_path: pathlib.Path) -> None:
    for state in ({"x": 3}, {"x": torch.zeros(2, dtype=torch.complex64)}, {"a\nb": torch.zeros(2)}):
        with pytest.raises(UsageError):
            campfire.save(tmp_path / "x", state)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match="is what a part of a packed weight is called"):
        campfire.save(tmp_path / "x", {"w": torch.eye(32), "w:value": torch.zeros(2)})


# --- targets ---------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.campfire"
    campfire.save(path, {"w": torch.eye(8)})
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        campfire.save(path, {"w": torch.zeros(8, 8)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.campfire"]


def test_a_device_that_is_full(tmp_path: pathlib.Path) -> None:
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / "x.campfire"
    path.write_text("old")
    (tmp_path / ".x.campfire.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        campfire.save(path, {"w": torch.eye(8)})
    assert path.read_text() == "old"


def test_folders(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UsageError, match="is a folder; give the path of a file"):
        campfire.save(tmp_path, {"w": torch.eye(8)})
    with pytest.raises(UsageError, match=r"there is no folder .*nowhere; give the path"):
        campfire.save(tmp_path / "nowhere" / "x", {"w": torch.eye(8)})
    for path in (tmp_path, tmp_path / "x"):
        with pytest.raises(UsageError, match="there is no file"):
            read(path)


def test_an_ordinary_safetensors_file_is_foreign(tmp_path: pathlib.Path) -> None:
    safetensors.torch.save_file({"w": torch.eye(8)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="`campfire import` reads it"):
        campfire.load(tmp_path / "x.safetensors")


# --- at random -------------------------------------------------------------------------------------------------------


def fuzz(count: int) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("fuzz_files", ROOT / "bench" / "fuzz_files.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run(count)


def test_a_thousand_damaged_files() -> None:
    found = fuzz(1000)
    assert found["wrong"] == []
    assert found["refused"] > 900


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_thousand_damaged_files() -> None:
    assert fuzz(200_000)["wrong"] == []
