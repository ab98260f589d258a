"""Where a run ran: what a reader needs to repeat it, or to know why it differs."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from campfire.config import Config
from campfire.data import ImageData

PACKAGES = ("campfire-sparse", "torch", "numpy", "pillow", "safetensors")


def describe(config: Config, images: ImageData, device: torch.device, world: int = 1) -> dict[str, Any]:
    """The content of ``env.json``."""
    return {
        "argv": sys.argv,
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
        "git": _git(),
        "host": {"name": platform.node(), "system": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count()},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "world_size": world,
        "launch": os.environ.get("TORCHELASTIC_RUN_ID"),
        "seed": config.run.seed,
        "images": {"name": images.name, "labels": images.labelling},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> str | None:
    """The commit checked out in the working directory, with ``+`` where files differ from it."""
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _cpu() -> str:
    """The processor's model name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
