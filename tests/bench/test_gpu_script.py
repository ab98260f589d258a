"""The script for GPUs, tried without one: no pydantic, no YAML, tiny shapes."""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "bench" / "gpu"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the benchmarks are not here")


def run(*options: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = ["bash", str(ROOT / "bench" / "gpu.sh"), *options]
    given = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **env}
    return subprocess.run(command, env=given, capture_output=True, text=True, check=False)


def test_a_dry_run_without_the_packages_that_a_gpu_machine_lacks(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    done = run(
        "--dry", "--only", "masks,overhead", "--output", str(tmp_path),
        WITHOUT="pydantic,yaml,tyro", OUT=str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = tmp_path.glob("*.json")
    found = json.loads(path.read_text())
    assert found["without"] == ["pydantic", "yaml"]
    assert {name: x["error"] for name, x in found["stages"].items()} == {"masks": None, "overhead": None}
    assert found["masks"]["ck"]["ours_ms"] > 0
    assert found["targets"][-1]["measured"] == found["overhead"]["share"]
    assert all(row["reached"] is None for row in found["targets"])
    text = path.with_suffix(".md").read_text()
    assert "these figures mean nothing" in text
    assert (tmp_path / "out" / path.with_suffix(".md").name).read_text() == text


def test_without_a_gpu_and_not_dry_it_is_refused() -> None:
    done = run()
    assert done.returncode == 2
    assert "no GPU is here; --dry" in done.stderr


def test_what_takes_too_long_is_broken_off_and_the_next_stage_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    run = importlib.import_module("run")
    limits = importlib.import_module("limits")

    def endless(dry: bool) -> list[int]:
        try:
            while True:
                try:
                    time.sleep(1)
                except Exception:  # what tries something else after any error
                    continue
        except limits.TimeUp as late:
            late.found = [1]
            raise

    def quick(dry: bool) -> int:
        return 2

    endless.limit, quick.limit = 0.05, 60
    args, results = argparse.Namespace(dry=False, seconds=1000), {}
    told = [run._one(stage, args, time.monotonic(), results) for stage in (endless, quick)]
    assert told[0]["error"].startswith("TimeUp: broken off")
    assert told[1]["error"] is None
    assert results == {"endless": [1], "quick": 2}
    late = argparse.Namespace(dry=False, seconds=0)
    assert run._one(quick, late, time.monotonic(), results)["error"] == "the time was up"


def test_targets_and_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import targets

    passes = {name: {"ratio": 2.0, "sparse_ms": 1.0} for name in ("forward", "d_input", "d_values")}
    rows = [{"structure": "block-64x64", "sparsity": 0.7, "flops": 989e9, "bytes": 2.4e9, **passes}]
    found = targets.table({"kernels": rows, "overhead": {"share": 0.02}, "dry": False})
    assert [(row["measured"], row["reached"]) for row in found if row["measured"]] == [
        (2.0, True), (2.0, True), (2.0, True), (0.02, False),
    ]  # fmt: skip
    near = targets.roofline(rows[0], "forward", "NVIDIA H200")
    assert near["bound"] == "arithmetic"
    assert near["of_limit"] == pytest.approx(1.0)
    assert near["tflops"] == pytest.approx(989)
    assert near["least_gb_per_s"] == pytest.approx(2400)
    assert "bound" not in targets.roofline(rows[0], "forward", "another GPU")
