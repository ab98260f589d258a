"""Compiles every Triton kernel to machine code of an H100 or H200 (sm_90), as it would be launched, on a machine without a GPU.

Prints one JSON line: of each compiled kernel its name, dtype, config, tensor-core instructions, whether it takes denormals for
zeros, registers, bytes of local memory (where registers spill to), and bytes of shared memory. Run with ``TRITON_INTERPRET=0``.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
import triton
from gpu_cases import Case, Conv
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from campfire.kernels.gpu import configs, kernel, launch, toolchain
from campfire.native.gpu import masks, serving

TARGET = GPUTarget("cuda", 90, 32)
LAYERS = (
    Case((128, 128, 3, 3), (64, 64), dtype=torch.bfloat16),
    Case((128, 128, 3, 3), (128, 32), taps=True, conv=Conv(2, 1), ordered=True, dtype=torch.bfloat16),
    Case((64, 64, 1, 1), (32, 32), conv=Conv(1, 0), dtype=torch.float16),
    Case((64, 64, 3, 3), (64, 64)),
)
# Numbers that are 1 become constants of the code; more than 31 bits of entries, and parts of pixels, are others.
ONE = Case((64, 64, 3, 3), (64, 64), size=(1, 1, 1), dtype=torch.bfloat16)
LARGE = Case((128, 64, 3, 3), (64, 32), conv=Conv(2, 1), size=(9, 5, 7), dtype=torch.bfloat16)
_compiled: list[dict[str, Any]] = []


class Driver:
    """What a launch asks its GPU for, until it is compiled."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return TARGET


def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
    """In place of a launch."""
    made = _run(self, *args, grid=grid, warmup=True, **kwargs)
    name = self.__name__
    kind = next((str(x.dtype) for x in args if isinstance(x, torch.Tensor)), "")
    tensor = len(re.findall(r"\b(?:wgmma|mma)\S*(?:sync|async)", made.asm["ptx"]))
    wide = "wgmma" in made.asm["ptx"]
    registers, local = usage(made.asm["cubin"])
    _compiled.append(
        {
            "kernel": name, "dtype": kind, "warps": kwargs.get("num_warps"), "stages": kwargs.get("num_stages"),
            "tensor": tensor, "wgmma": wide, "flushes": ".ftz" in made.asm["ptx"], "registers": registers, "local": local, "shared": made.metadata.shared,
        }
    )  # fmt: skip


def usage(binary: bytes) -> tuple[int, int]:
    """Registers a thread, and bytes of stack and local memory."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}
    return found["REG"], found["STACK"] + found["LOCAL"]


def convolutions(cases: Sequence[Case], numbers: Sequence[int]) -> None:
    """Three passes of each, in the configurations of these numbers."""
    for case in cases:
        passes, (x, dy) = kernel.GpuPasses(case.packed(), case.conv), case.inputs()
        value = torch.zeros(passes.value_shape, dtype=case.dtype)
        bias, residual = torch.zeros(case.shape[0]), torch.zeros_like(dy)
        for number in numbers if case.dtype == torch.bfloat16 else (1,):
            chosen = {False: configs.CONV[number], True: configs.VALUES[number]}
            with mock.patch.object(launch, "_choice", lambda layer, name, *_, c=chosen: c[name == "d_values"]):
                launch.forward(passes, x, value, bias, residual, True)
                launch.d_input(passes, dy, value, tuple(x.shape))
                launch.d_values(passes, dy, x)


def mask_kernels() -> None:
    score = torch.rand(64, 32, 3, 3)
    masks.select([masks.Part(score, score > 0.1, 999), masks.Part(score[:, :, :1, :1].contiguous(), None, 99)])
    masks.keep_best_rows(score.view(-1, 9), 4, None)
    masks.ranks(score.view(-1, 9))
    masks.lost_outputs([score > 0.5])
    for dtype in masks.DTYPES:
        run = masks.multiplication([(score > 0.5, [score.to(dtype), score.to(dtype)])])
        assert run is not None
        run()


if __name__ == "__main__":
    _run = JITFunction.run
    triton.runtime.driver.set_active(Driver())  # pyright: ignore[reportArgumentType]
    serving.DEVICES.add("cpu")
    with (
        mock.patch.object(JITFunction, "run", compile_only),
        mock.patch.object(toolchain, "runs_on", return_value=True),
    ):
        convolutions(LAYERS, (0, 1))
        convolutions([ONE], (0,))
        with mock.patch.multiple(launch, REACH=1, PART=32):
            convolutions([LARGE], (0,))
        mask_kernels()
    print(json.dumps(_compiled))
