"""The cache is shared by processes and never trusted."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from native_sources import FLAVOURS, script, small_build, written

from campfire.native import BuildFailed
from campfire.native import store as storing
from campfire.native.compilers import Compiler
from campfire.native.store import Store, Unloadable

LOAD = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from native_sources import small_build
from campfire.native.store import Store
print(Store(Path({cache!r})).load(small_build(Path({sources!r}))).answer(), flush=True)
maps = open("/proc/self/maps").readlines() if Path("/proc/self/maps").exists() else []
runtimes = {{line.split()[-1] for line in maps if "omp" in line.rpartition("/")[2]}}
assert len(runtimes) <= 1, runtimes  # torch's OpenMP runtime is the library's too
"""


def counted(folder: Path) -> Path:
    """A compiler that notes every run in a file beside it."""
    body = f"""
import subprocess
if "--version" not in sys.argv:
    open({str(folder / "runs")!r}, "a").write("x")
sys.exit(subprocess.run(["c++", *sys.argv[1:]]).returncode)"""
    return script(folder / "counted", body)


def runs(folder: Path) -> int:
    return (folder / "runs").stat().st_size


def broken(path: Path, how: str) -> None:
    """Harm a library in the cache; by a new file in its place, for this process may have mapped the old one."""
    whole = path.read_bytes()
    if how in ("truncated", "foreign"):
        path.unlink()
        path.write_bytes(whole[: len(whole) // 2] if how == "truncated" else b"not a library")
    elif how == "no note":
        path.with_suffix(".json").unlink()
    elif how == "a note of another build":
        note = json.loads(path.with_suffix(".json").read_text())
        path.with_suffix(".json").write_text(json.dumps({**note, "key": "0" * 64}))
    elif how == "a note that is a list":
        path.with_suffix(".json").write_text("[]")
    elif how == "empty note":
        path.with_suffix(".json").write_text("")


def test_four_processes_at_once_compile_once_and_all_load_with_one_runtime(tmp_path: Path) -> None:
    sources = written(tmp_path / "cpp")
    code = LOAD.format(here=str(Path(__file__).parent), cache=str(tmp_path / "cache"), sources=str(sources))
    env = {**os.environ, "CXX": str(counted(tmp_path))}
    ran = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env) for _ in range(4)]
    assert [p.communicate(timeout=200)[0] for p in ran] == ["42\n"] * 4
    assert [p.returncode for p in ran] == [0] * 4
    assert runs(tmp_path) == 1
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == [".json", ".lock", ".so"]


def test_without_locks_processes_harm_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "fcntl", None)
    found: list[int] = []
    build = small_build(tmp_path / "cpp")
    loads = [
        threading.Thread(target=lambda: found.append(Store(tmp_path / "cache").load(build).answer())) for _ in range(4)
    ]
    for thread in loads:
        thread.start()
    for thread in loads:
        thread.join()
    assert found == [42] * 4


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoLocks:
        LOCK_EX = 2

        @staticmethod
        def flock(*_: object) -> None:
            raise OSError("no locks available")

    monkeypatch.setattr(storing, "fcntl", NoLocks)
    assert Store(tmp_path / "cache").load(small_build(tmp_path / "cpp")).answer() == 42


@pytest.mark.parametrize(
    "how", ["truncated", "foreign", "no note", "a note of another build", "a note that is a list", "empty note"]
)
def test_what_is_damaged_is_made_anew(how: str, tmp_path: Path) -> None:
    by = Compiler((str(counted(tmp_path)),))
    store, build = Store(tmp_path / "cache"), small_build(tmp_path / "cpp", by=by)
    store.load(build)
    broken(store.path(build), how)
    assert store.find(build) is None
    assert store.load(build).answer() == 42
    assert runs(tmp_path) == 2
    assert store.find(build) is not None


def test_what_is_sound_is_not_made_anew(tmp_path: Path) -> None:
    build = small_build(tmp_path / "cpp", by=Compiler((str(counted(tmp_path)),)))
    for _ in range(3):
        assert Store(tmp_path / "cache").load(build).answer() == 42
    assert runs(tmp_path) == 1


def test_a_folder_where_the_library_should_be(tmp_path: Path) -> None:
    store, build = Store(tmp_path / "cache"), small_build(tmp_path / "cpp")
    store.path(build).mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        store.load(build)
    assert not list(store.folder.glob("*.part-*"))


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    store, build = Store(tmp_path / "cache"), small_build(tmp_path / "cpp")
    left = store.folder / f"{build.stem}.part-old"
    left.mkdir(parents=True)
    store.load(build)
    assert not left.exists()


def test_a_compiler_that_writes_no_library(tmp_path: Path) -> None:
    body = "open(sys.argv[sys.argv.index('-o') + 1], 'w').write('garbage')"
    build = small_build(tmp_path / "cpp", by=Compiler((str(script(tmp_path / "liar", body)),)))
    with pytest.raises(Unloadable, match="was compiled and cannot be loaded"):
        Store(tmp_path / "cache").load(build)


def test_a_compiler_that_fails_leaves_nothing(tmp_path: Path) -> None:
    body = "print('error: the sky is falling'); sys.exit(1)"
    build = small_build(tmp_path / "cpp", by=Compiler((str(script(tmp_path / "bad", body)),)))
    with pytest.raises(BuildFailed, match="the sky is falling"):
        Store(tmp_path / "cache").load(build)
    assert [p.suffix for p in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize("kind", FLAVOURS)
def test_every_flavour_runs_with_threads(kind: str, tmp_path: Path) -> None:
    found = Store(tmp_path / "cache").load(small_build(tmp_path / "cpp", kind))
    assert (found.answer(), found.threads()) == (42, 8)


def _forked(cache: Path, build: object, queue: multiprocessing.Queue) -> None:
    queue.put(Store(cache).load(build).answer())  # pyright: ignore[reportArgumentType]


def test_a_forked_process_loads_too(tmp_path: Path) -> None:
    build, context = small_build(tmp_path / "cpp"), multiprocessing.get_context("fork")
    Store(tmp_path / "cache").load(build)
    queue = context.Queue()
    child = context.Process(target=_forked, args=(tmp_path / "cache", build, queue))
    child.start()
    assert queue.get(timeout=60) == 42
    child.join()
