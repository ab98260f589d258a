"""Timings on disk: shared, never trusted, and not needed."""

import json
import os
import pathlib
import time
from collections.abc import Iterator

import pytest
import torch

from campfire.cli import kernels
from campfire.errors import UsageError
from campfire.kernels import Conv, stopwatch, timings
from campfire.kernels.times import Case
from campfire.mask import Mask
from campfire.native.flavours import FLAVOURS, Cpu
from campfire.packed import pack

NOW = time.time()
ENTRY = {"dense": 2.0, "ratios": {"blocks": 1.5}, "spread": 1.02, "when": NOW}


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    monkeypatch.setenv("CAMPFIRE_NATIVE", "0")
    monkeypatch.setenv("CAMPFIRE_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    timings.forget()


def small(density: float = 0.5, images: int = 2) -> Case:
    keep = torch.arange(64).view(8, 8, 1, 1) < 64 * density
    return Case(pack(torch.ones(8, 8, 1, 1), Mask(keep)), Conv(), (images, 8, 4, 4), torch.float32)


def test_what_one_process_kept_another_finds(folder: pathlib.Path) -> None:
    timings.keep({"a": ENTRY})
    timings.forget()
    timings.keep({"b": ENTRY})
    timings.forget()
    assert timings.find("a") == timings.find("b") == ENTRY
    assert timings.find("c") is None
    assert sorted(p.name for p in folder.iterdir()) == ["timings.json", "timings.lock"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2",
        "[]",
        "null",
        '{"format": "other", "entries": {"a": {"dense": 1, "ratios": {}}}}',
        '{"format": "campfire-timings-2", "entries": [1]}',
        '{"format": "campfire-timings-2", "entries": {"a": {"dense": -1, "ratios": {}, "spread": 1, "when": 1}}}',
        '{"format": "campfire-timings-2", "entries": {"a": {"dense": 1, "ratios": {"blocks": NaN}, "spread": 1, "when": 1}}}',
        '{"format": "campfire-timings-2", "entries": {"a": {"dense": "1", "ratios": {}, "spread": 1, "when": 1}}}',
        '{"format": "campfire-timings-2", "entries": {"a": 7}}',
        '{"format": "campfire-timings-2", "entries": {"a": {"dense": 1, "ratios": {}}}}',
        "\udcff",
    ],
)
def test_damaged_and_foreign_files_are_ignored(folder: pathlib.Path, content: str) -> None:
    folder.mkdir()
    (folder / "timings.json").write_bytes(content.encode(errors="surrogateescape"))
    assert timings.find("a") is None
    timings.keep({"b": ENTRY})
    timings.forget()
    assert timings.find("b") == ENTRY


def test_where_nothing_can_be_written_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CAMPFIRE_CACHE", str(tmp_path / "file" / "cache"))
    timings.keep({"a": ENTRY})
    assert timings.find("a") == ENTRY
    timings.forget()
    assert timings.find("a") is None


def test_an_interrupted_write_leaves_the_old_file(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timings.keep({"a": ENTRY})
    monkeypatch.setattr(json, "dump", _failing)
    timings.keep({"b": ENTRY})
    timings.forget()
    assert timings.find("a") == ENTRY
    assert not [p for p in folder.iterdir() if "part" in p.name]


def _failing(*args: object, **kwargs: object) -> None:
    raise OSError("no space left on device")


def test_a_layer_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = []

    def count(runs: dict[str, stopwatch.Run], *_: object) -> timings.Entry:
        for run in runs.values():
            run()
        clock.append(sorted(runs))
        return {**ENTRY, "dense": 1.0, "ratios": {k: 2.0 for k in runs if k != "dense"}}

    monkeypatch.setattr(stopwatch, "timed", count)
    found = stopwatch.measure(small(), ["reference"])
    assert clock == [["dense", "reference"]] * 3
    assert found.of("reference", "d_input") == 0.5
    timings.forget()
    assert stopwatch.measure(small(0.51), ["reference"]) == found, "the same density to 5 %"
    assert len(clock) == 3
    stopwatch.measure(small(0.75), ["reference"], ["forward"])
    stopwatch.measure(small(images=3), ["reference"], ["forward"])
    assert len(clock) == 5
    assert stopwatch.converting((2, 8, 4, 4), torch.float32) > 0
    assert len(clock) == 6


def test_the_key_tells_layers_apart() -> None:
    other = Case(small().packed, Conv(2), small().size, torch.float32)
    half = Case(small().packed, Conv(), small().size, torch.bfloat16)
    keys = {stopwatch.key_of(c) for c in (small(), small(0.75), small(images=3), other, half)}
    assert len(keys) == 5


def test_the_key_tells_flavours_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense is as fast in each, kernels are not."""
    tiled = Cpu("tiled", frozenset(FLAVOURS["amx"].needs))
    monkeypatch.setattr("campfire.native.flavours.this_cpu", lambda: tiled)
    keys = set()
    for name in FLAVOURS:
        monkeypatch.setenv("CAMPFIRE_ISA", name)
        keys.add(stopwatch.key_of(small()))
    assert len(keys) == len(FLAVOURS)


def test_real_times_are_positive_and_finite() -> None:
    found = stopwatch.measure(small(), ["reference"], ["forward"])
    assert found.dense["forward"] > 0
    assert found.of("reference", "forward") > 0
    assert os.path.exists(timings._path())


@pytest.mark.parametrize("doubt", [{"spread": 1.5}, {"when": NOW - 40 * 86400}])
def test_doubtful_timings_serve_one_process_and_are_measured_anew(doubt: dict[str, float]) -> None:
    timings.keep({"a": ENTRY, "b": {**ENTRY, **doubt}})
    assert timings.find("b") == {**ENTRY, **doubt}, "as long as it runs, its own word counts"
    timings.forget()
    assert timings.find("a") == ENTRY
    assert timings.find("b") is None
    timings.keep({"b": {**ENTRY, "dense": 3.0}})
    timings.forget()
    assert timings.find("b") == {**ENTRY, "dense": 3.0}


def test_of_two_doubtful_timings_the_better_stays() -> None:
    timings.keep({"a": {**ENTRY, "spread": 1.5}})
    timings.forget()
    timings.keep({"a": {**ENTRY, "spread": 1.9, "dense": 9.0}})
    assert timings.find("a") == {**ENTRY, "spread": 1.5}
    timings.keep({"a": {**ENTRY, "spread": 1.4, "dense": 5.0}})
    assert timings.find("a") == {**ENTRY, "spread": 1.4, "dense": 5.0}
    other = {**ENTRY, "spread": 1.9, "ratios": {"lanes": 2.0}}
    timings.keep({"a": other})
    assert timings.find("a") == other, "of other kernels"


def test_rounds_that_lie_apart_are_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def clocked(turns: list[list[float]]) -> timings.Entry:
        waiting = iter([[1.0, 1.0], *turns])
        asked.clear()

        def interleaved(runs: dict[str, stopwatch.Run], rounds: int, clock: object) -> dict[str, list[float]]:
            asked.append(rounds)
            times = next(waiting)
            return {"dense": [8.0] * len(times), "near": times}

        monkeypatch.setattr(stopwatch, "interleaved", interleaved)
        return stopwatch.timed({"dense": lambda: None, "near": lambda: None})

    steady = [4.0, 4.0, 4.0, 4.0, 40.0]  # one round in five was disturbed
    assert clocked([steady])["spread"] == 1.0
    assert asked == [stopwatch.WARM, stopwatch.FEW]
    found = clocked([[8.0, 8.0, 4.0, 4.0, 8.0], [4.0] * 5, [4.0] * 5])
    assert (found["ratios"]["near"], found["spread"]) == (2.0, 1.0)
    assert asked == [stopwatch.WARM] + [stopwatch.FEW] * 3
    assert clocked([[2.0, 2.0, 4.0, 8.0, 8.0]] * 3)["spread"] == 4.0
    assert NOW <= found["when"] <= time.time()


def test_timings_are_dropped(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    timings.keep({"a": ENTRY, "b": ENTRY})
    assert kernels.main(["forget"]) == 0
    assert timings.find("a") is None
    assert not (folder / "timings.json").exists()
    assert kernels.main(["forget", "--json"]) == 0
    assert capsys.readouterr().out == '2 timings forgotten\n{"forgotten": 0}\n'
    (folder / "timings.json").mkdir()
    with pytest.raises(UsageError, match="cannot be removed"):
        kernels.main(["forget"])
