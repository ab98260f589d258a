"""campfire: CNNs sparse in structures that hardware can use.

Public names are resolved on first use (PEP 562), so that importing the package, and the command line's ``--help``,
never import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Pruner": "campfire.pruner",
    "Phase": "campfire.pruner",
    "inter_epoch": "campfire.pruner",
    "Era": "campfire.schedules",
    "Steps": "campfire.schedules",
    "OneShot": "campfire.schedules",
    "Mask": "campfire.mask",
    "named": "campfire.structures",
    "pack": "campfire.packed",
    "SparseConv2d": "campfire.nn",
    "SparseLinear": "campfire.nn",
    "compress_": "campfire.compress",
    "decompress_": "campfire.compress",
    "tune_": "campfire.compress",
    "fuse": "campfire.fusion",
    "eliminate_": "campfire.couplings",
    "find_dead": "campfire.couplings",
    "check_method": "campfire.testing",
    "check_structure": "campfire.testing",
    "CampfireError": "campfire.errors",
    "Config": "campfire.config",
    "train": "campfire.training",
    "evaluate": "campfire.training",
    "load_run": "campfire.training",
    "save": "campfire.files",
    "load": "campfire.files",
    "load_": "campfire.files",
}

if TYPE_CHECKING:
    from campfire.compress import compress_ as compress_
    from campfire.compress import decompress_ as decompress_
    from campfire.compress import tune_ as tune_
    from campfire.config import Config as Config
    from campfire.couplings import eliminate_ as eliminate_
    from campfire.couplings import find_dead as find_dead
    from campfire.errors import CampfireError as CampfireError
    from campfire.files import load as load
    from campfire.files import load_ as load_
    from campfire.files import save as save
    from campfire.fusion import fuse as fuse
    from campfire.mask import Mask as Mask
    from campfire.nn import SparseConv2d as SparseConv2d
    from campfire.nn import SparseLinear as SparseLinear
    from campfire.packed import pack as pack
    from campfire.pruner import Phase as Phase
    from campfire.pruner import Pruner as Pruner
    from campfire.pruner import inter_epoch as inter_epoch
    from campfire.schedules import Era as Era
    from campfire.schedules import OneShot as OneShot
    from campfire.schedules import Steps as Steps
    from campfire.structures import named as named
    from campfire.testing import check_method as check_method
    from campfire.testing import check_structure as check_structure
    from campfire.training import evaluate as evaluate
    from campfire.training import load_run as load_run
    from campfire.training import train as train

__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'campfire' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
