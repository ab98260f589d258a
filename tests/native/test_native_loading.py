"""Libraries by name: what steers them, and what happens where they cannot be had."""

import ctypes
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from native_sources import script

from campfire import native
from campfire.errors import DoesNotFit, NoNative, UnknownName
from campfire.native import BuildFailed, loading
from campfire.native.flavours import FLAVOURS, Cpu, this_cpu


@pytest.fixture(autouse=True)
def answers(cache: Path, only_answer: Path) -> Path:
    """The only library is ``answer``."""
    return only_answer


def silently(name: str = "answer") -> ctypes.CDLL | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return native.library(name)


def state() -> str:
    return native.info()["libraries"]["answer"]["state"]


@pytest.mark.parametrize("mode", [None, "", "1", "require"])
def test_it_is_there(mode: str | None, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if mode is not None:
        monkeypatch.setenv("CAMPFIRE_NATIVE", mode)
    assert state() == "not built"
    found = silently()
    assert found is not None
    assert found.answer() == 42
    assert native.library("answer") is found
    assert Path(found._name).parent == cache
    assert state() == "loaded"
    monkeypatch.setattr(loading, "_outcomes", {})
    assert state() == "built"


def test_off_says_nothing_and_compiles_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_NATIVE", "0")
    assert silently() is None
    assert not cache.exists()
    assert native.info()["state"] == "off"


def test_an_unknown_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_NATIVE", "requir")
    with pytest.raises(UnknownName, match="CAMPFIRE_NATIVE is called 'requir'; did you mean 'require'"):
        native.library("answer")


@pytest.mark.parametrize("mode", ["1", "require"])
def test_mistakes_are_never_passed_over(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_NATIVE", mode)
    with pytest.raises(UnknownName, match="did you mean 'answer'"):
        native.library("answers")
    monkeypatch.setenv("CAMPFIRE_ISA", "avx215")
    with pytest.raises(UnknownName, match="did you mean 'avx2'"):
        native.library("answer")
    monkeypatch.setenv("CAMPFIRE_ISA", "avx2")
    monkeypatch.setattr("campfire.native.flavours.this_cpu", lambda: Cpu("old", frozenset()))
    with pytest.raises(DoesNotFit, match="old has no avx2, fma"):
        native.library("answer")


def test_the_flavour_follows_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FLAVOURS:
        if not this_cpu().lacks(FLAVOURS[name]):
            monkeypatch.setenv("CAMPFIRE_ISA", name)
            found = native.library("answer")
            assert found is not None
            assert f"answer-{name}-" in found._name


FAILING = {
    "fails": ("print('one\\ntwo\\nerror: no'); sys.exit(1)", "exit code 1.*error: no"),
    "writes nothing": ("", "exit code 0.*none"),
    "writes garbage": (
        "'-o' in sys.argv and open(sys.argv[sys.argv.index('-o') + 1], 'wb').write(bytes(999))",
        "cannot be loaded",
    ),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "exit code -9"),
}


@pytest.mark.parametrize("how", FAILING)
def test_a_compiler_that(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, message = FAILING[how]
    monkeypatch.setenv("CXX", str(script(tmp_path / "cxx", body)))
    with pytest.warns(NoNative, match=f"(?s)torch does their work.*{message}") as told:
        assert native.library("answer") is None
    assert len(told) == 1
    assert silently() is None
    assert state() == "failed"
    monkeypatch.setenv("CAMPFIRE_NATIVE", "require")
    with pytest.raises(BuildFailed, match=f"(?s)CAMPFIRE_NATIVE=require, and .*{message}"):
        native.library("answer")


@pytest.mark.parametrize(
    ("cxx", "message"), [("no-such-compiler -m64", "names no program"), ("'", "is no command"), ("", "on the path")]
)
def test_no_compiler(cxx: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", cxx)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(NoNative, match=f"{message}.*install g"):
        assert native.library("answer") is None
    assert native.info()["state"] == "no compiler"
    assert native.info()["reason"]


def test_one_warning_for_all_libraries(answers: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    (answers / "other.cpp").touch()
    with pytest.warns(NoNative) as told:
        assert (native.library("answer"), native.library("other")) == (None, None)
    assert len(told) == 1


def test_what_is_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cxx").write_bytes(b"\x7fELF nothing")
    (tmp_path / "cxx").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    with pytest.warns(NoNative, match="cannot run"):
        assert native.library("answer") is None


def test_a_cache_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CAMPFIRE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(NoNative, match=r"cache folder cannot be used \(.*file.*campfire-native-") as told:
        found = native.library("answer")
    assert len(told) == 1
    assert found is not None
    assert found.answer() == 42
    assert Path(found._name).parent == loading.private_folder()
    assert state() == "loaded"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache(cache: Path) -> None:
    cache.mkdir()
    cache.chmod(0o500)
    with pytest.warns(NoNative, match="cache folder cannot be used"):
        assert native.library("answer") is not None


def test_a_filled_read_only_cache_is_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native.library("answer")
    monkeypatch.setattr(loading, "_outcomes", {})
    monkeypatch.setattr("campfire.native.store.Store._lock", None)  # whoever wants to write fails
    assert silently() is not None


def test_the_private_folder_goes_with_its_process(tmp_path: Path) -> None:
    code = (
        "from campfire.native.loading import private_folder; import os; print(private_folder(), flush=True)\n"
        "if os.fork() == 0: raise SystemExit\nos.wait(); assert private_folder().is_dir()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()


def test_where_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loading.cache_folder() == tmp_path / "cache"
    monkeypatch.setenv("CAMPFIRE_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert loading.cache_folder() == Path("/xdg/campfire/native")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert loading.cache_folder() == Path("/home/me/.cache/campfire/native")
    monkeypatch.setenv("CAMPFIRE_CACHE", "~/own")
    assert loading.cache_folder() == Path("/home/me/own")


def test_a_relative_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAMPFIRE_CACHE", ".")
    found = silently()
    assert found is not None
    assert Path(found._name).parent == tmp_path


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAMPFIRE_CACHE")
    monkeypatch.setattr(Path, "expanduser", Path("~nobody-here").expanduser)
    assert loading.cache_folder() == loading.private_folder()


def test_importing_needs_no_torch() -> None:
    code = "import sys, campfire.native as n; n.info(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
