"""What the Triton kernels become on an H100 or H200, read from the machine code: no GPU is needed to compile it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gpu_cases import needs_triton

pytestmark = pytest.mark.xdist_group("gpu code")  # one process compiles for all

HERE = Path(__file__).parent
SHARED = 227 * 1024  # bytes that one program may have there
PRODUCTS = {"block_conv", "block_values"}
MASKS = {
    "write_keys",
    "count_digits",
    "narrow",
    "count_ties",
    "settle",
    "write_keep",
    "rank_rows",
    "multiply",
    "count_lost",
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Every kernel, as `compile_for_gpu` tells of it."""
    said = subprocess.run(
        [sys.executable, HERE / "compile_for_gpu.py"],
        env={
            **os.environ,
            "TRITON_INTERPRET": "0",
            "CAMPFIRE_NATIVE": "require",  # what fails to compile is an error
            "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")),
        },
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr[-3000:]
    return json.loads(said.stdout.splitlines()[-1])


@needs_triton
def test_all_kernels_compile(compiled: list[dict[str, Any]]) -> None:
    assert {x["kernel"] for x in compiled} >= PRODUCTS | MASKS | {"add_parts"}


@needs_triton
def test_products_run_on_tensor_cores(compiled: list[dict[str, Any]]) -> None:
    products = [x for x in compiled if x["kernel"] in PRODUCTS]
    assert {x["dtype"] for x in products} == {"torch.bfloat16", "torch.float16", "torch.float32"}
    assert [x for x in products if not x["tensor"]] == []
    assert [x for x in products if x["kernel"] == "block_conv" and not x["wgmma"]] == []


@needs_triton
def test_no_kernel_spills_its_registers(compiled: list[dict[str, Any]]) -> None:
    """Of 4 warps, each thread holds twice as many sums: boxes of 128 outputs are for 8 warps then."""
    assert [x for x in compiled if x["warps"] != 4 and x["local"]] == []
    assert max(x["shared"] for x in compiled) <= SHARED


@needs_triton
def test_denormal_scores_keep_their_order(compiled: list[dict[str, Any]]) -> None:
    assert [x for x in compiled if x["kernel"] in MASKS and x["flushes"]] == []
