"""The guard against kernels that get slower: instructions of the AVX2 flavour for each vector of products, by callgrind.

Callgrind counts, so the figure is the same on a busy machine; it cannot run AVX-512, whose inner loops
`test_inner_loops.py` reads in the disassembly. Limits are a quarter above what gcc 12 makes.
"""

import ctypes
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from campfire import native
from campfire.kernels import KERNELS, Conv, Prepared
from campfire.kernels.blocks.kernel import BlockPasses
from campfire.kernels.formats import to_format
from campfire.kernels.lanes import passes as lanes_passes
from campfire.mask import Mask
from campfire.packed import pack

HERE = Path(__file__).parent
WIDE = 8  # floats of one AVX2 register
VALGRIND = shutil.which("valgrind")

pytestmark = pytest.mark.skipif(VALGRIND is None or shutil.which("cc") is None, reason="needs valgrind and cc")

Call = tuple[str, str, list[Any]]  # library, function, arguments


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("drive") / "drive"
    subprocess.run(["cc", "-O1", "-o", str(program), str(HERE / "drive.c"), "-ldl"], check=True)
    return program


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The native calls that kernels make, in the AVX2 flavour, as they make them; nothing is computed."""
    monkeypatch.setenv("CAMPFIRE_ISA", "avx2")
    made: list[Call] = []
    width = lanes_passes.width()

    def of_blocks(self: BlockPasses, name: str, *arguments: Any) -> None:
        made.append((f"blocks_{name}", f"campfire_blocks_{name}", list(arguments)))

    def of_lanes(library: str, name: str, *arguments: Any) -> int:
        if name == "width":
            return width
        made.append((library, f"campfire_lanes_{name}", list(arguments)))
        return 0

    monkeypatch.setattr(BlockPasses, "_call", of_blocks)
    monkeypatch.setattr(lanes_passes, "call", of_lanes)
    return made


def instructions(call: Call, drive: Path, folder: Path) -> int:
    """How many instructions one call takes, on one thread."""
    library, function, arguments = call
    loaded = native.library(library)
    assert loaded is not None
    (folder / "arguments").write_bytes(b"".join(map(written, arguments)))
    command = [
        *(str(VALGRIND), "--tool=callgrind", f"--toggle-collect={function}", f"--callgrind-out-file={folder / 'out'}"),
        *(str(drive), loaded._name, function, str(folder / "arguments")),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found, done.stderr[-2000:]
    return int(found[1])


def written(argument: Any) -> bytes:
    """One argument as drive.c reads it."""
    if isinstance(argument, ctypes.c_int64):
        argument = argument.value
    if isinstance(argument, int | None):
        return struct.pack("<qq", 0, argument or 0)
    if isinstance(argument, Tensor):
        size = argument.numel() * argument.element_size()
        memory = ctypes.string_at(argument.data_ptr(), size)  # dense, in whatever memory format
    else:
        memory = bytes(argument._obj)  # what ctypes.byref points to
    return struct.pack("<qq", 1, len(memory)) + memory


def mask(shape: tuple[int, int, int, int], unit: tuple[int, int, int, int]) -> Mask:
    """30 % of all units of so many outputs, inputs, rows and columns of taps."""
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand([a // b for a, b in zip(shape, unit, strict=True)], generator=generator) < 0.3
    for axis, size in enumerate(unit):
        keep = keep.repeat_interleave(size, axis)
    return Mask(keep)


CASES = {  # kernel, weight [K, C, R, S], what lives or dies together, layout, images
    "tiles 3x3": ("blocks", (64, 64, 3, 3), (32, 4, 3, 3), "unit", 2),
    "tiles 1x1": ("blocks", (128, 64, 1, 1), (32, 4, 1, 1), "unit", 2),
    "regrouped 1x1": ("blocks", (128, 64, 1, 1), (32, 4, 1, 1), "grouped", 2),
    "ck 3x3": ("lanes", (64, 64, 3, 3), (1, 1, 3, 3), "csr", 16),
    "fine 3x3": ("lanes", (64, 64, 3, 3), (1, 1, 1, 1), "csr", 16),
    "fine 1x1": ("lanes", (128, 64, 1, 1), (1, 1, 1, 1), "csr", 16),
}
LIMITS = {  # instructions for each vector of products: forward, d_input, d_values
    "tiles 3x3": (3.8, 5.5, 4.6),
    "tiles 1x1": (4.1, 7.7, 5.3),
    "regrouped 1x1": (9.7, 7.8, 10.4),
    "ck 3x3": (3.0, 3.0, 3.6),
    "fine 3x3": (3.8, 3.8, 6.2),
    "fine 1x1": (4.2, 4.7, 6.3),
}
PASSES = ("forward", "d_input", "d_values")


def run(case: str, name: str) -> float:
    """Make one pass; how many vectors of products it needs."""
    kernel, shape, unit, layout, images = CASES[case]
    conv = Conv(padding=shape[2] // 2)
    generator, keep = torch.Generator().manual_seed(0), mask(shape, unit).keep
    order = torch.randperm(shape[0], generator=generator) if layout == "grouped" else torch.arange(shape[0])
    keep = Mask(torch.empty_like(keep).index_copy_(0, order, keep), {"order": order})
    packed = pack(torch.randn(shape, generator=generator), keep, layout)
    prepared: Prepared = KERNELS[kernel].prepare(packed, conv)
    value, form = packed.parts["value"], KERNELS[kernel].format
    x = to_format(torch.randn(images, shape[1], 14, 14), form)
    dy = to_format(torch.randn(images, shape[0], 14, 14), form)
    if name == "forward":
        prepared.forward(x, value, None)
    elif name == "d_input":
        prepared.d_input(dy, value, tuple(x.shape))
    else:
        prepared.d_values(dy, x)
    return value.numel() * images * 14 * 14 / WIDE


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("case", CASES)
def test_no_more_instructions_than_before(case: str, name: str, calls: list[Call], drive: Path, tmp_path: Path) -> None:
    products = run(case, name)
    assert len(calls) == 1
    each = instructions(calls[0], drive, tmp_path) / products
    assert 0.5 < each < LIMITS[case][PASSES.index(name)], f"{each:.2f} instructions for each vector of products"
