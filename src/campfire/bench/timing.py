"""Timing by turns, and the machine that figures belong to."""

import platform
from pathlib import Path
from typing import Any

import torch

from campfire.kernels.interleaving import interleaved as interleaved
from campfire.kernels.interleaving import ratio as ratio


def machine() -> dict[str, Any]:
    """The processor, its vector instructions and the versions a figure belongs to."""
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
    }
