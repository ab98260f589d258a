"""Timing by turns, and the machine that figures belong to."""

import platform
from pathlib import Path
from typing import Any

import torch

from campfire.kernels.interleaving import interleaved as interleaved
from campfire.kernels.interleaving import ratio as ratio


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """The processor, its vector instructions and the versions a figure belongs to; and the GPU, if it was timed."""
    info = Path("/proc/cpuinfo")
    model = (
        [x.split(":", 1)[1].strip() for x in info.read_text().splitlines() if x.startswith("model name")]
        if info.exists()
        else []
    )
    return {
        "cpu": model[0] if model else platform.processor() or platform.machine(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **(gpu(device) if device is not None and device.type == "cuda" else {}),
    }


def gpu(device: torch.device) -> dict[str, Any]:
    """A GPU, and the versions of what it runs."""
    found = torch.cuda.get_device_properties(device)
    try:
        from triton import __version__ as triton
    except ImportError:
        triton = None
    return {
        "gpu": found.name,
        "multiprocessors": found.multi_processor_count,
        "gpu_memory_gb": found.total_memory / 1e9,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": triton,
    }
