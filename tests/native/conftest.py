"""Every test here has a cache of its own, and a process that has loaded and warned of nothing."""

from pathlib import Path

import pytest

from campfire.native import loading


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
