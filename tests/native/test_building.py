"""The key of a build changes with all that its code depends on, and with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest
from native_sources import script, small_build, written

from campfire.errors import UnknownName
from campfire.native import building
from campfire.native.building import Build, check_name, sources
from campfire.native.compilers import Compiler
from campfire.native.flavours import FLAVOURS, Cpu


def test_the_key_is_one_builds_own(tmp_path: Path) -> None:
    build = small_build(tmp_path / "cpp")
    others = [
        replace(build, flavour=FLAVOURS["avx2"]),
        replace(build, level="-O2"),
        replace(build, compiler=Compiler(("/bin/false",))),
        replace(build, compiler=Compiler((*build.compiler.command, "-m64"))),
        replace(build, folder=written(tmp_path / "other", number=7)),
    ]
    assert len({build.key, *(x.key for x in others)}) == 6
    assert replace(build, folder=written(tmp_path / "same")).key == build.key


def test_the_key_changes_with_the_compilers_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by = Compiler((str(script(tmp_path / "cxx", "print('cxx 12\\nand more')")),))
    assert by.version == "cxx 12"
    build = small_build(tmp_path / "cpp", by=by)
    before = build.key
    monkeypatch.setattr(Compiler, "version", "cxx 13")
    assert replace(build).key != before


@pytest.mark.parametrize("file", ["answer.cpp", "number.h", "new.h"])
def test_the_key_changes_with_source_and_headers(file: str, tmp_path: Path) -> None:
    first = small_build(tmp_path / "cpp")
    before = first.key
    with (tmp_path / "cpp" / file).open("a") as out:
        out.write("// changed\n")
    assert replace(first).key != before


def test_only_tuned_code_depends_on_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned, portable = (replace(small_build(tmp_path / "cpp"), flavour=FLAVOURS[x]) for x in ("avx512", "portable"))
    before = tuned.key, portable.key
    monkeypatch.setattr(building, "this_cpu", lambda: Cpu("another", frozenset()))
    assert replace(tuned).key != before[0]
    assert replace(portable).key == before[1]


def test_unknown_sources_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "cpp")
    assert sources(folder) == ["answer"]
    with pytest.raises(UnknownName, match="no native library is called 'anwser'; did you mean 'answer'"):
        check_name("anwser", folder)


def test_flags_of_flavours() -> None:
    flags = {name: Build("x", f, Compiler(("c++",))).flags for name, f in FLAVOURS.items()}
    assert {"-march=native", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"} <= set(flags["avx512"])
    assert set(flags["amx"]) - set(flags["avx512"]) == {"-DCAMPFIRE_AMX"}
    assert {"-mavx2", "-mfma"} <= set(flags["avx2"])
    assert not [f for f in flags["portable"] if f.startswith("-m")]
    assert all("-ffast-math" not in f and f[0] == "-O3" for f in flags.values())
