from pathlib import Path

import pytest

from campfire.errors import DoesNotFit, UnknownName
from campfire.native.flavours import FLAVOURS, Cpu, flavour, flavour_names, read_cpu, this_cpu

TILED = Cpu("tiled", frozenset(FLAVOURS["amx"].needs))
BIG = Cpu("big", frozenset({"avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq"}))
KNIGHTS = Cpu("avx512f alone", frozenset({"avx2", "fma", "avx512f"}))
OLD = Cpu("old", frozenset({"sse2"}))


@pytest.mark.parametrize(("cpu", "best"), [(TILED, "amx"), (BIG, "avx512"), (KNIGHTS, "avx2"), (OLD, "portable")])
def test_the_best_that_runs_is_taken(cpu: Cpu, best: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAMPFIRE_ISA", raising=False)
    assert flavour(cpu=cpu).name == best
    assert flavour_names(cpu) == list(FLAVOURS)[list(FLAVOURS).index(best) :]
    monkeypatch.setenv("CAMPFIRE_ISA", "")
    assert flavour(cpu=cpu).name == best


def test_the_variable_forces_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_ISA", "portable")
    assert flavour(cpu=BIG).name == "portable"
    assert flavour("avx2", cpu=BIG).name == "avx2"


def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_ISA", "avx51")
    with pytest.raises(UnknownName, match=r"flavour \(CAMPFIRE_ISA\) is called 'avx51'; did you mean 'avx512'"):
        flavour()
    with pytest.raises(DoesNotFit, match="old has no avx2, fma; it runs portable"):
        flavour("avx2", cpu=OLD)
    with pytest.raises(DoesNotFit, match="has no amx_tile, amx_bf16; it runs avx512 and avx2 and portable"):
        flavour("amx", cpu=BIG)
    with pytest.raises(DoesNotFit, match="has no avx512bw, avx512vl, avx512dq; it runs avx2 and portable"):
        flavour("avx512", cpu=KNIGHTS)


def test_reading_what_the_system_tells(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("model name\t: A\nflags\t\t: fma avx2\n\nmodel name\t: B\nflags\t: none\n")
    assert read_cpu(file) == Cpu("A", frozenset({"fma", "avx2"}))
    file.write_text("Features : asimd\n")
    assert read_cpu(file).features == frozenset()
    assert read_cpu(tmp_path / "missing").features == frozenset()
    assert this_cpu().name
