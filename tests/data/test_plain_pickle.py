import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import noise, python2_pickle, write_cifar

from campfire.data import load
from campfire.data.plain_pickle import read_pickle
from campfire.errors import CampfireError


class Payload:
    """Unpickled, it would run a command."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def hostile(flag: Path) -> dict[str, bytes]:
    """Files that would make ``flag`` if they were unpickled as usual."""
    command = f"touch '{flag}'".encode()
    return {
        "reduce": pickle.dumps({"data": Payload(command.decode()), "labels": [0]}, protocol=2),
        "inst": b"(S'" + command.replace(b"'", b"\\'") + b"'\nios\nsystem\n.",
        "stack_global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(command)]) + command + b"\x85R.",
        "builtin": b'c__builtin__\neval\n(S\'open("x", "w")\'\ntR.',
        "dotted": b"\x80\x04\x8c\x05numpy\x8c\x0ef2py.os.system\x93\x8c\x01x\x85R.",
        "newobj": b"\x80\x02csubprocess\nPopen\nS'touch'\n\x85\x81.",
    }


@pytest.mark.parametrize("kind", list(hostile(Path("x"))))
def test_nothing_is_run(tmp_path: Path, kind: str) -> None:
    path, flag = tmp_path / "batch", tmp_path / "was_here"
    path.write_bytes(hostile(flag)[kind])
    with pytest.raises(CampfireError, match=r"asks to run .*, which data never does"):
        read_pickle(path)
    assert not flag.exists()


def test_the_payload_is_a_real_one(tmp_path: Path) -> None:
    flag = tmp_path / "was_here"
    pickle.loads(hostile(flag)["reduce"])
    assert flag.exists()


@pytest.mark.parametrize("file", ["data_batch_2", "batches.meta"])
def test_nothing_is_run_by_loading_a_folder(tmp_path: Path, file: str) -> None:
    home, *_ = write_cifar(tmp_path, "cifar-10-batches-py")
    flag = tmp_path / "was_here"
    (home / file).write_bytes(hostile(flag)["reduce"])
    with pytest.raises(CampfireError, match=f"{file}.*system"):
        load(home)
    assert not flag.exists()


@pytest.mark.parametrize("protocol", range(5))
def test_python3_pickles(tmp_path: Path, protocol: int) -> None:
    pixels = noise(3, 4)
    (tmp_path / "p").write_bytes(pickle.dumps({"data": pixels, "labels": [1, 2]}, protocol=protocol))
    found = read_pickle(tmp_path / "p")
    assert np.array_equal(found["data"], pixels)
    assert found["labels"] == [1, 2]


def test_python2_pickles(tmp_path: Path) -> None:
    raw = python2_pickle(noise(3, 400), [3, 1])
    assert np.array_equal(pickle.loads(raw, encoding="bytes")[b"data"], noise(3, 400))  # as numpy itself has it
    (tmp_path / "p").write_bytes(raw)
    assert np.array_equal(read_pickle(tmp_path / "p")["data"], noise(3, 400))
    assert read_pickle(tmp_path / "p")["labels"] == [3, 1]


@pytest.mark.parametrize("array", [np.arange(3), np.array([None, "x"]), np.zeros(2, "f4")])
def test_only_bytes_become_arrays(tmp_path: Path, array: np.ndarray) -> None:
    (tmp_path / "p").write_bytes(pickle.dumps({"data": array}, protocol=2))
    with pytest.raises(CampfireError, match="instead of bytes"):
        read_pickle(tmp_path / "p")


def test_columns_first(tmp_path: Path) -> None:
    array = np.asfortranarray(noise(3, 5))
    (tmp_path / "p").write_bytes(pickle.dumps({"data": array}, protocol=2))
    assert np.array_equal(read_pickle(tmp_path / "p")["data"], array)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    raw = python2_pickle(noise(2, 20), [3, 1])
    for length in range(len(raw)):
        (tmp_path / "p").write_bytes(raw[:length])
        with pytest.raises(CampfireError, match="cannot read"):
            read_pickle(tmp_path / "p")
