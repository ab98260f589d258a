"""``campfire kernels`` tells the truth, in one line where asked, with the exit codes of every command."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from campfire import cli
from campfire.native import listing, loading
from campfire.native.building import Build
from campfire.native.compilers import KNOWN
from campfire.native.flavours import Cpu, flavour_names

pytestmark = pytest.mark.skipif(not any(map(shutil.which, KNOWN)), reason="needs a C++ compiler")


@pytest.fixture(autouse=True)
def one_small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpp").mkdir()
    (tmp_path / "cpp" / "one.cpp").write_text('extern "C" int one() { return 1; }')
    for name in ("CAMPFIRE_ISA", "CAMPFIRE_NATIVE", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CAMPFIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "_outcomes", {})
    monkeypatch.setattr(listing, "sources", lambda: ["one"])
    monkeypatch.setattr(listing, "Build", lambda *given: Build(*given, tmp_path / "cpp", "-O1"))


def told(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> dict[str, Any]:
    assert cli.main(["kernels", *argv, "--json"]) == code
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_info_then_build_then_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = told(capsys, "info")
    assert (before["state"], before["cache"]) == ("ready", str(tmp_path / "cache"))
    assert before["libraries"]["one"] == {"state": "not built", "file": None, "size": None, "reason": ""}
    assert not (tmp_path / "cache").exists()
    built = told(capsys, "build")
    assert built["libraries"]["one"]["state"] == "built"
    assert built["libraries"]["one"]["seconds"] > 0
    after = told(capsys, "info")["libraries"]["one"]
    assert after["size"] == Path(after["file"]).stat().st_size > 0
    assert told(capsys, "build")["libraries"]["one"]["seconds"] == 0


@pytest.mark.parametrize("name", flavour_names())
def test_every_flavour(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "build", "--isa", name)
    assert found["flavour"] == name
    assert f"one-{name}-" in found["libraries"]["one"]["file"]


def test_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.main(["kernels", "build"]) == 0
    assert "one  built" in capsys.readouterr().out
    monkeypatch.setenv("CAMPFIRE_NATIVE", "0")
    assert cli.main(["kernels", "info"]) == 0
    assert "state     off" in capsys.readouterr().out


def test_a_source_that_does_not_compile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cpp" / "one.cpp").write_text("no C++")
    one = told(capsys, "build", code=1)["libraries"]["one"]
    assert one["state"] == "failed"
    assert "error" in one["reason"]


def test_no_compiler(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = told(capsys, "info")
    assert (found["state"], found["compiler"]) == ("no compiler", None)
    assert cli.main(["kernels", "info"]) == 0
    assert "names no program" in capsys.readouterr().out
    assert cli.main(["kernels", "build"]) == 1
    assert capsys.readouterr().err.startswith("campfire kernels: no C++ compiler")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["build", "--isa", "avx51"], "no flavour is called 'avx51'; did you mean 'avx512'?"),
        (["build", "--isa", "avx2"], "flavour 'avx2' does not fit this CPU"),
        (["built"], "argument WHAT: invalid choice"),
        ([], "the following arguments are required: WHAT"),
        (["info", "--isa", "avx2"], "no option is called '--isa'"),
    ],
)
def test_mistakes(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("campfire.native.flavours.this_cpu", lambda: Cpu("old", frozenset()))
    assert cli.main(["kernels", *argv]) == 2
    assert capsys.readouterr().err.startswith(f"campfire kernels: {message}")


def test_a_cache_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAMPFIRE_CACHE", str(tmp_path / "file" / "cache"))
    assert cli.main(["kernels", "build"]) == 1
    assert "Not a directory" in capsys.readouterr().err
