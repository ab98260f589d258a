"""Files that are not what they should be, and targets that cannot be written: one clear error, and nothing has changed."""

import errno
import importlib.util
import os
import pathlib
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from file_models import net, pruned
from hostile_files import CASES, CONTAINERS, a_file, damaged, edited
from torch import nn

import campfire
from campfire.errors import CheckpointError, UsageError
from campfire.files import writing
from campfire.files.loading import from_bytes, read
from campfire.files.saving import Claim, to_bytes
from campfire.files.survivors import Scaled
from campfire.mask import Mask

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("case", CASES)
def test_a_changed_header_is_refused(case: str) -> None:
    change, says = CASES[case]
    with pytest.raises(CheckpointError, match=says):
        from_bytes(edited(a_file(), change), limit=10**6 if "bomb" not in case else None)


@pytest.mark.parametrize(("data", "says"), [pytest.param(*case, id=case[1]) for case in (*CONTAINERS, *damaged())])
def test_damaged_data(data: bytes, says: str) -> None:
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
    one, other = a_file(), a_file(seed=1)
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


def test_a_device_that_is_full(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    path = tmp_path / "x.campfire"
    path.write_text("old")
    full = tmp_path / ".x.campfire.full.tmp"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(writing, "beside", lambda path: full)
    with pytest.raises(OSError, match="No space left on device"):
        campfire.save(path, {"w": torch.eye(8)})
    assert path.read_text() == "old"


def test_writers_of_one_file_do_not_meet(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x"
    with writing.replacing(path) as one, writing.replacing(path) as other:
        one.write_text("one")
        other.write_text("other, which is longer")
        assert len(writing.left(path)) == 2
    assert path.read_text() == "one"  # the last one to end
    assert not writing.left(path)


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
