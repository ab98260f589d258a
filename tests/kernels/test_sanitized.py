"""The tests of native kernels once more, under AddressSanitizer: no kernel reads or writes beside its tensors."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
RUN = """
import sys
import pytest
from campfire.native import building
building.COMMON = (*building.COMMON, "-fsanitize=address", "-g")
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("file", ["test_blocks.py"])
def test_kernels_stay_inside_their_tensors(file: str, tmp_path: pathlib.Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("the sanitizer's library is asked of g++")
    found = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0",
        "CAMPFIRE_CACHE": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    argv = [sys.executable, "-c", RUN, str(HERE / file), "-k", "not threads"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert " passed" in done.stdout
