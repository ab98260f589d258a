"""The tile registers: their emulation says what Intel's manual says and faults where it faults; the instructions, as assembled."""

import ctypes
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inner_loops import FUNCTION, INSTRUCTION, JUMP

from campfire.native.building import CPP, Build
from campfire.native.compilers import BuildFailed, compiler
from campfire.native.flavours import FLAVOURS, Flavour, has_amx
from campfire.native.store import Store

PROBE = """
#include "tiles.h"

extern "C" int64_t refusal() { return tile_refusal(); }

extern "C" void product(float* c, const uint16_t* a, const uint16_t* b, int64_t m, int64_t depth) {
    const Products products(m, depth);
    tile_settle();
    TILE_LOAD(1, c, 64);
    TILE_LOAD(5, a, depth * 4);
    TILE_LOAD(7, b, 64);
    TILE_DOT(1, 5, 7);
    TILE_STORE(1, c, 64);
}

#if defined(CAMPFIRE_EMULATE_TILES)  // the assembler refuses some of them
extern "C" void fault(int64_t number) {
    float memory[256] = {};
    TileConfig config{};
    config.palette = 1;
    if (number == 0) { TILE_ZERO(0); }
    if (number == 1) {
        { const Products products(16, 8); }
        TILE_LOAD(0, memory, 64);
    }
    if (number == 2) { config.palette = 2; tile_configure(config); }
    if (number == 3) { config.rows[0] = 17; config.bytes[0] = 64; tile_configure(config); }
    if (number == 4) { config.rows[0] = 4; tile_configure(config); }
    if (number == 5) { config.rows[8] = config.bytes[8] = 4; tile_configure(config); }
    if (number == 6) { config.reserved[3] = 1; tile_configure(config); }
    const Products products(16, 8);
    if (number == 7) { TILE_DOT(0, 6, 4); }
    if (number == 8) { TILE_DOT(0, 1, 6); }
    if (number == 9) { TILE_DOT(0, 4, 4); }
    config.rows[0] = config.bytes[0] = 4;
    tile_configure(config);
    if (number == 10) { TILE_STORE(3, memory, 64); }
}
#endif
"""
FAULTS = {
    0: "before they were configured",
    1: "before they were configured",
    2: "palette",
    3: "16 rows",
    4: "16 rows",
    5: "8 tiles",
    6: "reserved",
    7: "shapes",
    8: "shapes",
    9: "three tiles",
    10: "no shape",
}
INCLUDE = f"-I{CPP}"
EMULATED = Flavour("emulated", (INCLUDE, "-DCAMPFIRE_EMULATE_TILES"))
ASSEMBLED = Flavour("amx", (INCLUDE, "-march=sapphirerapids", "-DCAMPFIRE_AMX"))


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    (folder / "probe.cpp").write_text(PROBE)
    return folder


@pytest.fixture(scope="module")
def libraries(probe: Path) -> list[ctypes.CDLL]:
    """The emulation, and the instructions where this CPU has them and the system lets us."""
    store, native = Store(probe), Flavour("native", (INCLUDE, *FLAVOURS["amx"].flags))
    found = [store.load(Build("probe", EMULATED, compiler(), probe, "-O2"))]
    if has_amx():
        real = store.load(Build("probe", native, compiler(), probe))
        found += [real] * (real.refusal() == 0)
    return found


@pytest.fixture(scope="module", autouse=True)
def knows_amx(probe: Path) -> None:
    try:
        Build("probe", ASSEMBLED, compiler(), probe).compile(probe / "known.so")
    except BuildFailed as error:
        if "sapphirerapids" in str(error):
            pytest.skip(f"{compiler()} knows no AMX")
        raise


def rounded(x: np.ndarray) -> np.ndarray:
    """To float32, denormal numbers to zero."""
    x = x.astype(np.float32)
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), x), x)


def wide(halves: np.ndarray) -> np.ndarray:
    return rounded((halves.astype(np.uint32) << 16).view(np.float32)).astype(np.float64)


def manual(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """TDPBF16PS as the manual has it: even and odd products apart, fused and in order, then their sum, then the tile's."""
    a, b = wide(a), wide(b)
    sums = np.zeros((2, *c.shape))
    with np.errstate(all="ignore"):
        for k in range(b.shape[0]):
            for odd in (0, 1):
                products = np.outer(a[:, 2 * k + odd], b[k, odd::2])
                sums[odd] = rounded(products + sums[odd])
        return rounded(rounded(c).astype(np.float64) + rounded(sums[0] + sums[1]))


def product(library: ctypes.CDLL, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    room = np.full((16, 16), np.nan, np.float32)
    room[: len(c)] = c
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (room, a, b)]
    library.product(*pointers, ctypes.c_int64(len(a)), ctypes.c_int64(len(b)))
    assert np.isnan(room[len(c) :]).all()  # rows that the tile does not have
    return room[: len(c)]


@settings(max_examples=60)
@given(st.integers(1, 16), st.integers(1, 16), st.integers(0, 2**32 - 1), st.sampled_from([0, 40, 127, 250]))
def test_products_are_those_of_the_manual(libraries, m: int, depth: int, seed: int, exponents: int) -> None:
    """Numbers alike in size, far apart, and so far that they overflow or are denormal; infinities and NaN among the latter."""
    random = np.random.default_rng(seed)

    def halves(*shape: int) -> np.ndarray:
        exponent = np.clip(127 - exponents // 2 + random.integers(0, exponents + 1, shape), 0, 255)
        return (random.integers(0, 2, shape) << 15 | exponent << 7 | random.integers(0, 128, shape)).astype(np.uint16)

    a, b, c = halves(m, 2 * depth), halves(depth, 32), (halves(m, 16).astype(np.uint32) << 16).view(np.float32)
    wanted = manual(c, a, b)
    for library in libraries:
        assert np.array_equal(product(library, c, a, b), wanted, equal_nan=True)


def test_denormal_numbers_count_as_zeros(libraries) -> None:
    one, small, least = (np.uint16(0x3F80), np.uint16(0x0040), np.uint16(0x0080))  # 1, denormal, the least that is not
    a, b = np.zeros((1, 2), np.uint16), np.zeros((1, 32), np.uint16)
    for library in libraries:
        for left, right, sum, wanted in (
            (small, one, 0, 0),
            (one, least, 0, 2.0**-126),
            (least, np.uint16(0x3F00), 0, 0),  # half of the least
            (one, one, 2.0**-130, 1),
            (0, 0, 2.0**-130, 0),
        ):
            a[0, 0], b[0, 0] = left, right
            c = np.full((1, 16), sum, np.float32)
            assert product(library, c, a, b)[0, 0] == np.float32(wanted)


@pytest.mark.parametrize("number", FAULTS)
def test_faults_end_the_process(libraries, number: int) -> None:
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).fault(ctypes.c_int64(int(sys.argv[2])))"
    command = [sys.executable, "-c", code, libraries[0]._name]
    done = subprocess.run([*command, str(number)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGABRT
    assert re.fullmatch(f"tiles: .*{FAULTS[number]}.*\n", done.stderr)


def test_without_a_fault_it_lives(libraries) -> None:
    libraries[0].fault(ctypes.c_int64(-1))


def innermost(text: str) -> list[list[str]]:
    """The smallest loop around every product of tiles, once each."""
    found: dict[tuple[int, int], list[str]] = {}
    for function in re.split(r"\n\n", text):
        lines = [read for line in function.splitlines() if (read := INSTRUCTION.match(line))]
        named = [line for line in function.splitlines() if FUNCTION.match(line)]
        places = [int(read[1], 16) for read in lines]
        jumps = [(at, JUMP.match(read[3])) for at, read in zip(places, lines, strict=True) if read[2].startswith("j")]
        spans = [(int(jump[1], 16), at) for at, jump in jumps if jump and places[0] <= int(jump[1], 16) <= at]
        for at, read in zip(places, lines, strict=True):
            if read[2] == "tdpbf16ps":
                around = [span for span in spans if span[0] <= at <= span[1]]
                assert around, f"{named}: a product outside of loops"
                low, high = min(around, key=lambda span: span[1] - span[0])
                body = [f"{x[2]} {x[3]}" for p, x in zip(places, lines, strict=True) if low <= p <= high]
                found[low, high] = body
    return list(found.values())


def disassembled(build: Build, library: Path) -> str:
    if shutil.which("objdump") is None:
        pytest.skip("needs objdump")
    build.compile(library)
    command = ["objdump", "-d", "--no-show-raw-insn", str(library)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", ["blocks_amx_conv", "blocks_amx_d_values"])
def test_other_flavours_hold_no_tiles(name: str, tmp_path: Path) -> None:
    """Whatever the CPU: ``CAMPFIRE_ISA=avx512`` runs without them."""
    vectors = Flavour("avx512", tuple(x for x in ASSEMBLED.flags if "AMX" not in x))
    assert "tmm" not in disassembled(Build(name, vectors, compiler()), tmp_path / "library.so")


@pytest.mark.parametrize(
    ("name", "loads"),
    [("blocks_amx_conv", {(4, 4), (3, 2), (5, 4), (2, 1)}), ("blocks_amx_d_values", {(4, 4), (5, 4), (3, 2)})],
)
def test_inner_loops_keep_their_sums_in_tiles(name: str, loads: set[tuple[int, int]], tmp_path: Path) -> None:
    """Each loop, as compiled for a CPU with AMX: so many loads for so many products, sums neither loaded nor stored."""
    text = disassembled(Build(name, ASSEMBLED, compiler()), tmp_path / "library.so")
    bodies = innermost(text)
    for body in bodies:
        assert not [line for line in body if re.match(r"tilestored|tilezero|tilerelease|ldtilecfg|call", line)], body
        assert not [line for line in body if line.startswith("tileload") and re.search(r"%tmm[0-3]$", line)], body
        assert not [line for line in body if "mm" in line and re.search(r"\(%r[sb]p", line)], body
    counts = [[sum(line.startswith(x) for line in body) for x in ("tileloadd", "tdpbf16ps")] for body in bodies]
    assert {(a, b) for a, b in counts} == loads
    assert text.count("tilerelease") >= 1
