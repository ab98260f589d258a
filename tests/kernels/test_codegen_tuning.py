"""Tuning of generated code: tiles are tried once, the best is used from then on, and the model's choice where none gains."""

from pathlib import Path

import pytest
import torch

from campfire import native
from campfire.kernels import timings
from campfire.kernels.codegen import plan as codegen_plan
from campfire.kernels.codegen import tuning as codegen_tuning
from campfire.kernels.codegen.flat import FlatNeed, flat_ahead
from campfire.kernels.codegen.index import PatternIndex
from campfire.kernels.codegen.plan import Need, cheapest
from campfire.kernels.codegen.tuning import tune
from campfire.kernels.lanes.plan import Geometry, reads


@pytest.fixture(autouse=True)
def _own_timings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timings, "cache_folder", lambda: tmp_path)


def index() -> PatternIndex:
    positions = (torch.arange(40)[:, None] * 9 + torch.tensor([0, 1, 3, 4])).flatten()
    return PatternIndex(positions, Geometry(16, 5, 4, 3, 8, 3, 3, padding=1))


def need() -> Need:
    return Need(reads(Geometry(16, 256, 14, 14, 256, 3, 3, padding=1), whole=False), 4.0, 4, 0.5, 16)


def test_candidates_are_cut_differently_and_begin_with_the_models() -> None:
    found = need().candidates()
    best = cheapest(need())[0]
    assert next(iter(found)).startswith(f"{found[next(iter(found))].rows}x{best[1]}x")
    cuts = [(walk.rows, walk.cols, walk.block) for walk in found.values()]
    assert len(set(cuts)) == len(cuts) > 3
    assert all(f"{walk.rows}x{walk.cols}" == name.rpartition("x")[0] for name, walk in found.items())


def few() -> FlatNeed:
    return FlatNeed(flat_ahead(Geometry(1, 64, 14, 14, 256, 3, 3, padding=1)), 4, 0.5, 16)


def kept(ratios: dict[str, float], key: str = "") -> None:
    entry = {"dense": 1.0, "ratios": ratios, "spread": 1.0, "when": 4e9}
    timings.keep({f"{key or need().key} {codegen_tuning.setting()}": entry})


def test_what_was_fastest_is_used() -> None:
    usual = need().chosen()
    kept({"2x7x700": 1.2, "5x5x1100": 1.1})
    tuned = need().chosen()
    assert (tuned.rows, tuned.cols) == (2, 7) != (usual.rows, usual.cols)
    kept({"2x7x700": 1.01, "5x5x1100": 0.9})
    again = need().chosen()
    assert (again.rows, again.cols, again.block) == (usual.rows, usual.cols, usual.block)


@pytest.mark.parametrize(
    "name",
    ["", "7", "2x7", "0x7x700", "2x0x700", "9x3x1100", "5x14x1100", "2x7x65536", "2x7x-1", "x2x7", "\u0662x7x700"],
)
def test_a_tile_that_nobody_tried_is_not_believed(name: str) -> None:
    usual = need().chosen()
    kept({name: 2.0})
    assert bytes(need().chosen()) == bytes(usual)


@pytest.mark.parametrize("name", ["", "4", "0x16", "4x0", "99x16", "2x99999", "2x7x700"])
def test_a_cut_that_nobody_tried_is_not_believed(name: str) -> None:
    usual = few().chosen()
    kept({name: 2.0}, few().key)
    assert bytes(few().chosen()) == bytes(usual)
    kept({"2x32": 3.0}, few().key)
    assert few().chosen().widest == 2


def test_a_layer_is_tuned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    if native.library("lanes") is None:
        pytest.skip("no compiler")
    calls = []

    def clock(runs: dict) -> dict:
        calls.append(list(runs))
        for run in runs.values():
            run()
        return {"dense": 1.0, "ratios": dict.fromkeys(runs.keys() - {"dense"}, 1.5), "spread": 1.0, "when": 4e9}

    monkeypatch.setattr(codegen_tuning, "timed", clock)
    monkeypatch.setattr(codegen_plan, "TILES", 2)
    found = tune(index(), index())
    assert len(calls) == 2
    assert all(names[0] == "dense" or "dense" in names for names in calls)
    assert found == tune(index(), index())
    assert len(calls) == 2
    assert set(found) == {"forward", "d_input"}
