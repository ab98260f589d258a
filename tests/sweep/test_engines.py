"""Trials by submitit, and on the machines of a Ray cluster."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import install
from sweep_cases import attempts, sweep, write

from campfire import extras
from campfire.errors import UsageError
from campfire.sweep.engines import local, make


def test_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    gate = tmp_path / "gate"
    grid = write(tmp_path, {"seeds": [0, 1, 2, 3]}, gate=str(gate))
    given: list[str] = []
    process = local.Process.__init__

    def noted(self: local.Process, folder: Path, environment: dict[str, str], gpus: Sequence[str]) -> None:
        given.append(",".join(gpus))
        gate.touch() if len(given) > 1 else None
        process(self, folder, environment, gpus)

    monkeypatch.setattr(local.Process, "__init__", noted)
    assert {r.state for r in sweep(grid, tmp_path / "s", jobs=2)} == {"done"}
    assert set(given) == {"3", "5"}
    assert given[0] != given[1]


@pytest.mark.parametrize(
    ("jobs", "shares"), [(None, ["0,1,2,3,4"]), (2, ["0,1", "2,3"]), (5, ["0", "1", "2"]), (7, ["0", "1", "2"])]
)
def test_a_job_has_its_share_of_the_gpus(
    jobs: int | None, shares: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    seen: list[str] = []

    class Asleep:
        def __init__(self, *_: Any, env: dict[str, str], **__: Any) -> None:
            seen.append(env["CUDA_VISIBLE_DEVICES"])

        def poll(self) -> None:
            return None

    monkeypatch.setattr(local.subprocess, "Popen", Asleep)
    engine = local.Local(tmp_path, jobs, {})
    for _ in shares:
        engine.start(tmp_path)
    assert seen == shares


def test_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(extras, "import_module", missing)
    with pytest.raises(UsageError, match=r"this engine needs ray .*pip install 'campfire-sparse\[sweep\]'"):
        make("ray", tmp_path, None, {})
    with pytest.raises(UsageError, match="no engine is called 'slrum'; did you mean 'slurm'"):
        make("slrum", tmp_path, None, {})


def test_no_slurm_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="Slurm cannot be used"):
        make("slurm", tmp_path, None, {})
    with pytest.raises(UsageError, match="Slurm cannot be used"):
        make("slurm", tmp_path, None, {"cluster": "local", "slurm_partion": "a"})


def test_slurm_by_the_local_executor(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    grid = write(tmp_path, {"seeds": [0, 1]}, die={1: -9})
    found = sweep(grid, tmp_path / "s", engine="slurm", options={"cluster": "local"})
    assert [(r.state, attempts(r)) for r in found] == [("done", 2)] * 2
    assert list((tmp_path / "s" / "slurm").glob("*_submitted.pkl"))


def test_slurm_jobs_outlive_their_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep is killed; the next one follows the very job that was submitted, and stops it when it is stopped."""
    pytest.importorskip("submitit")
    jobs = install(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm' / 'bin'}:{os.environ['PATH']}")
    grid, folder = write(tmp_path, {"seeds": [0]}, epochs=3000, pace=0.1), tmp_path / "s"
    command = [sys.executable, "-m", "campfire", "sweep", str(grid), "--output", str(folder), "--engine", "slurm"]
    first, begun = subprocess.Popen(command, stderr=subprocess.DEVNULL), folder / "run" / "last.pt"
    while not begun.exists():
        time.sleep(0.01)
    first.kill()
    first.wait()
    epoch = json.loads(begun.read_text())["epoch"]
    (found,) = sweep(grid, folder, engine="slurm", stopping=lambda: json.loads(begun.read_text())["epoch"] > epoch + 2)
    assert (found.state, attempts(found), len(list(jobs.iterdir()))) == ("pending", 1, 1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine, a processor each."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_goes_on_without_a_lost_machine(cluster: Any, tmp_path: Path) -> None:
    """Ray starts its trial on the other one, which finds the checkpoint."""
    lost, folder = [cluster.add_node(num_cpus=1)], tmp_path / "s"
    grid = write(tmp_path, {"seeds": [0, 1, 2, 3]}, epochs=6, pace=1)
    both = [folder / f"seed{i}" / "last.pt" for i in (0, 1)]

    def lose() -> bool:
        if lost and all(path.exists() for path in both):
            cluster.remove_node(lost.pop(), allow_graceful=False)
        return False

    found = sweep(grid, folder, engine="ray", options={"address": cluster.address}, stopping=lose)
    assert not lost
    assert [r.state for r in found] == ["done"] * 4
    assert sorted(map(attempts, found[:2])) == [1, 2]
    assert [attempts(r) for r in found[2:]] == [1, 1]
    assert {r.starts for r in found} == {1}  # by Ray alone


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_stops_with_checkpoints(cluster: Any, tmp_path: Path) -> None:
    grid, folder = write(tmp_path, {"seeds": [0]}, epochs=600, pace=0.5), tmp_path / "s"
    begun = (folder / "run" / "last.pt").exists
    found = sweep(grid, folder, engine="ray", options={"address": cluster.address}, stopping=begun)
    assert [(r.state, attempts(r)) for r in found] == [("pending", 1)]
    assert json.loads((folder / "run" / "last.pt").read_text())["epoch"] < 600
