"""The AVX-512 inner loops, read in the disassembly: mostly multiply-adds, and hardly a register that spills into memory."""

import ctypes
import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest

from campfire import native
from campfire.errors import CampfireError
from campfire.kernels.codegen.flat_source import FlatTiles
from campfire.kernels.codegen.source import Tiles
from campfire.native import generated

INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
JUMP = re.compile(r"^([0-9a-f]+) <")
FUNCTION = re.compile(r"^[0-9a-f]+ <(.+)>:$")


@dataclass(frozen=True)
class Loop:
    """A loop without a loop inside, from its first instruction to the jump back."""

    function: str
    body: tuple[str, ...]

    @property
    def products(self) -> int:
        """Multiply-adds of whole registers."""
        return sum(line.startswith("vfmadd") and "%zmm" in line for line in self.body)

    @property
    def spills(self) -> list[str]:
        """Registers that wait in memory."""
        return [
            line for line in self.body if line.startswith("vmov") and "%zmm" in line and re.search(r"\(%r[sb]p", line)
        ]


def loops(text: str) -> list[Loop]:
    """The innermost loops of a disassembly."""
    found: list[Loop] = []
    function, lines = "", []
    for line in text.splitlines():
        if named := FUNCTION.match(line):
            function, lines = named[1], []
        elif read := INSTRUCTION.match(line):
            address, name, operands = int(read[1], 16), read[2], read[3]
            lines.append((address, f"{name} {operands}"))
            jump = JUMP.match(operands) if name.startswith("j") else None
            if jump and lines[0][0] <= int(jump[1], 16) <= address:
                inside = [(at, body) for at, body in lines if at >= int(jump[1], 16)]
                if not any(_back(at, body) for at, body in inside[:-1]):
                    found.append(Loop(function, tuple(body for _, body in inside)))
    return found


def _back(address: int, body: str) -> bool:
    name, _, operands = body.partition(" ")
    jump = JUMP.match(operands) if name.startswith("j") else None
    return jump is not None and int(jump[1], 16) <= address


def hot(library: str, monkeypatch: pytest.MonkeyPatch) -> list[Loop]:
    """The loops of a library in which 16 multiply-adds of whole registers or more stand."""
    monkeypatch.setenv("CAMPFIRE_ISA", "avx512")
    try:
        loaded = native.library(library)
    except CampfireError as error:
        pytest.skip(str(error))
    return hot_of(loaded)


def hot_of(loaded: ctypes.CDLL | None) -> list[Loop]:
    if loaded is None or shutil.which("objdump") is None:
        pytest.skip("needs objdump and a compiler")
    command = ["objdump", "-d", "--no-show-raw-insn", loaded._name]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [loop for loop in loops(text) if loop.products >= 16]


def test_a_spill_is_found() -> None:
    text = """
0000000000001000 <f>:
    1000:\tvmovups (%rax),%zmm1
    1004:\tvfmadd231ps %zmm1,%zmm2,%zmm3
    1008:\tvmovaps %zmm3,0x40(%rsp)
    100c:\tjne    1000 <f>
    1010:\tjmp    1000 <f>
"""
    (loop,) = loops(text)
    assert (loop.products, loop.spills) == (1, ["vmovaps %zmm3,0x40(%rsp)"])


@pytest.mark.parametrize(
    "library", ["blocks_forward", "blocks_d_input", "blocks_d_input_1x1", "blocks_d_values", "lanes"]
)
def test_inner_loops_keep_their_sums_in_registers(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = hot(library, monkeypatch)
    assert found
    bad = {loop.function: loop.spills for loop in found if len(loop.spills) > 0.03 * loop.products}
    assert not bad, bad
    lean = [loop for loop in found if loop.products >= 0.4 * len(loop.body)]
    assert len(lean) >= 0.8 * len(found), {x.function: (x.products, len(x.body)) for x in found if x not in lean}


def test_generated_loops_read_every_vector_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_ISA", "avx512")
    tiles = Tiles(((0, 1, 9, 10), (1, 10, 11, 19)), (("",), ("",)), (3,), 7, 9)  # 2 x 2 taps; a cross without its left
    try:
        found = hot_of(generated.library("patterns", tiles.source(), "a test"))
    except CampfireError as error:
        pytest.skip(str(error))
    assert [loop.products for loop in found] == [4 * 3 * 7] * 2
    for loop in found:
        reads = [line for line in loop.body if "(%" in line and "%zmm" in line]
        assert not loop.spills
        assert len(reads) <= 0.55 * loop.products, loop.body


def test_generated_loops_over_few_images_keep_their_inputs_in_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_ISA", "avx512")
    tiles = FlatTiles(((0, 1, 3, 4), (1, 3, 4, 7)), (("",), ("",)), (5,), False)
    try:
        found = hot_of(generated.library("patterns", tiles.source(), "a test"))
    except CampfireError as error:
        pytest.skip(str(error))
    assert [loop.products for loop in found] == [4 * 5] * 2
    for loop in found:
        assert not loop.spills
        assert len(loop.body) <= 2.1 * loop.products, loop.body
