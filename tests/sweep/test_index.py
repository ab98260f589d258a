"""Claims by several processes at once: each trial goes to one of them."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sweep_cases import SHARED, write

from campfire.errors import CampfireError, CheckpointError
from campfire.sweep import Index, read_grid, records
from campfire.sweep.settling import settle

CLAIMER = """
import sys, time
from pathlib import Path
from campfire.sweep import Index
folder, go = Path(sys.argv[1]), Path(sys.argv[2])
while not go.exists():
    time.sleep(0.001)
with Index.open(folder) as index:
    while (found := index.claim(lambda row: True)) is not None:
        row, lock = found
        print(row.name, flush=True)
        with index.transaction():
            index.set(row, "done")
        lock.release()
"""


def test_claims_of_several_processes(tmp_path: Path) -> None:
    folder, go = tmp_path / "s", tmp_path / "go"
    settle(folder, read_grid(write(tmp_path, {"seeds": list(range(30))}))).__exit__()
    command = [sys.executable, "-c", CLAIMER, str(folder), str(go)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    go.touch()
    claimed = Counter(name for worker in workers for name in worker.communicate()[0].split())
    assert claimed == {f"seed{i}": 1 for i in range(30)}
    with Index.open(folder) as index:
        assert Counter(e.name for e in index.events() if e.state == "done") == claimed


def test_a_claim_goes_with_its_lock(tmp_path: Path) -> None:
    with settle(tmp_path / "s", read_grid(write(tmp_path, {"seeds": [0, 1]}))) as index:
        claims = [index.claim(lambda row: True) for _ in range(3)]
        assert [claim and claim[0].name for claim in claims] == ["seed0", "seed1", None]
        assert claims[0] is not None
        claims[0][1].release()  # as by the death of its process: the row still says running
        again = index.claim(lambda row: True)
        assert again is not None
        assert (again[0].name, again[0].state, index.rows()[0].starts) == ("seed0", "running", 2)


def test_a_group_may_be_called_otherwise(tmp_path: Path) -> None:
    """Trials keep their directories, and children wait for the parents that are there."""
    settle(tmp_path / "s", read_grid(write(tmp_path, SHARED))).__exit__()
    before = records(tmp_path / "s")
    groups = {"all": SHARED["groups"]["dense"], "few": SHARED["groups"]["sparse"] | {"from": "all"}}
    settle(tmp_path / "s", read_grid(write(tmp_path, SHARED | {"groups": groups}))).__exit__()
    after = records(tmp_path / "s")
    assert [(r.name, r.parent) for r in after] == [(r.name, r.parent) for r in before]
    assert [r.group for r in after] == ["all"] * 2 + ["few"] * 4


def test_nothing_of_a_broken_transaction_is_kept(tmp_path: Path) -> None:
    with settle(tmp_path / "s", read_grid(write(tmp_path, {"seeds": [0]}))) as index:
        with pytest.raises(CampfireError, match="cannot be used: no such column"), index.transaction():
            index.set(index.rows()[0], "done", no_such_column=1)
        assert index.rows()[0].state == "pending"
        assert index.events() == []


def test_to_look_is_not_to_make(tmp_path: Path) -> None:
    folder = tmp_path / "a folder?mode=ro#1"
    folder.mkdir()
    with pytest.raises(CampfireError, match=r"sweep\.db cannot be used"):
        Index.open(folder)
    assert not list(folder.iterdir())
    settle(folder, read_grid(write(tmp_path, {"seeds": [0]}))).__exit__()
    assert [r.name for r in records(folder)] == ["run"]


def test_a_damaged_index(tmp_path: Path) -> None:
    settle(tmp_path / "s", read_grid(write(tmp_path, {"seeds": [0]}))).__exit__()
    for path in (tmp_path / "s").glob("sweep.db*"):
        path.write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(CheckpointError, match=r"sweep.db is damaged .*move it away and start the sweep again"):
        records(tmp_path / "s")
