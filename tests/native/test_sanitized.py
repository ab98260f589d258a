"""The native code under the address and undefined-behaviour sanitizers: its own tests, with every access checked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CXX = "g++ -g -fno-sanitize-recover=all -fsanitize="
TESTS = {  # block and lane kernels are unrolled so far that the second sanitizer would compile for many minutes
    HERE / "test_native_masks.py": "address,undefined",
    HERE.parent / "kernels" / "test_blocks.py": "address",
    HERE.parent / "kernels" / "test_blocks_bf16.py": "address",
    HERE.parent / "kernels" / "test_blocks_amx.py": "address",  # tiles emulated
    HERE.parent / "kernels" / "test_lanes.py": "address",
    HERE.parent / "kernels" / "test_codegen.py": "address",
    HERE.parent / "kernels" / "test_formats.py": "address,undefined",
    HERE.parent / "nn" / "test_batchnorm.py": "address,undefined",
    HERE.parent / "nn" / "test_pooling.py": "address,undefined",
}


def runtime(name: str) -> str:
    """Where the compiler keeps a sanitizer's runtime; it must be loaded first."""
    done = subprocess.run(["g++", f"-print-file-name={name}.so"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def sanitized(argv: list[str], cache: Path, sanitizers: str = "address,undefined") -> subprocess.CompletedProcess[str]:
    env = {
        **os.environ,
        "CXX": CXX + sanitizers,
        "CAMPFIRE_CACHE": str(cache),
        "CAMPFIRE_NATIVE": "require",
        "LD_PRELOAD": f"{runtime('libasan')} {runtime('libubsan')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "OMP_NUM_THREADS": "2",
    }
    return subprocess.run([sys.executable, *argv], env=env, capture_output=True, text=True, check=False)


pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, whose keys tell the sanitizers apart: several tests use the same kernels."""
    return tmp_path_factory.mktemp("sanitized")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("tests", TESTS, ids=lambda p: p.stem)
def test_nothing_is_touched_that_should_not_be(tests: Path, cache: Path) -> None:
    patience = "--timeout=1800"  # a test compiles its kernels first, and checked ones take minutes
    argv = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", patience, str(tests)]
    done = sanitized(argv, cache, TESTS[tests])
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_a_read_past_the_end_is_caught(tmp_path: Path) -> None:
    (tmp_path / "cpp").mkdir()
    (tmp_path / "cpp" / "bad.cpp").write_text(
        'extern "C" int bad(int n) { int* x = new int[4](); int y = x[n]; delete[] x; return y; }'
    )
    code = (
        "import sys; from pathlib import Path; from campfire.native.building import Build\n"
        "from campfire.native.compilers import compiler; from campfire.native.flavours import flavour\n"
        "from campfire.native.store import Store; here = Path(sys.argv[1])\n"
        "found = Store(here / 'cache').load(Build('bad', flavour('portable'), compiler(), here / 'cpp', '-O0'))\n"
        "print(found.bad(3), flush=True); found.bad(4)"
    )
    done = sanitized(["-c", code, str(tmp_path)], tmp_path / "cache")
    assert done.stdout == "0\n"
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
