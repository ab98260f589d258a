"""Every test here has a cache of its own, and a process that has loaded and warned of nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from native_sources import FLAVOURS, small_build, written

from campfire.native import building, listing, loading
from campfire.native.building import Build
from campfire.native.compilers import BuildFailed, Compiler, compiler
from campfire.native.flavours import Flavour


@pytest.fixture(scope="session", autouse=True)
def needs_a_compiler() -> None:
    try:
        compiler()
    except BuildFailed as error:
        pytest.skip(str(error))


@pytest.fixture(params=FLAVOURS, scope="module")
def flavour(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every flavour that this CPU runs, in turn, and no torch in its place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPFIRE_ISA", request.param)
        patch.setenv("CAMPFIRE_NATIVE", "require")
        yield request.param


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no variable set that steers the substrate but the one that names it."""
    for name in ("CAMPFIRE_ISA", "CAMPFIRE_NATIVE", "CXX", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "cache"
    monkeypatch.setenv("CAMPFIRE_CACHE", str(folder))
    monkeypatch.setattr(loading, "_outcomes", {})
    monkeypatch.setattr(loading, "_warned", set())
    return folder


@pytest.fixture
def only_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only library is ``answer``, compiled quickly."""
    folder = written(tmp_path / "cpp")

    def build(name: str, kind: Flavour, by: Compiler) -> Build:
        return small_build(folder, kind.name, by) if name == "answer" else Build(name, kind, by)

    for module in (listing, loading):
        monkeypatch.setattr(module, "Build", build)
    monkeypatch.setattr(loading, "check_name", lambda name: building.check_name(name, folder))
    monkeypatch.setattr(listing, "sources", lambda: ["answer"])
    return folder
