"""Fixtures that several test files share."""

import importlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import torch

settings.register_profile(
    "campfire", deadline=None, derandomize=True
)  # the same examples always, however slow the machine
settings.load_profile("campfire")
# processes that tests start with "forkserver" have what takes seconds to import
multiprocessing.set_forkserver_preload(["torch._dynamo", "campfire.training"])


def _has_gpu() -> bool:
    try:
        import torch  # the test of the floors runs where there is no torch
    except ImportError:
        return False
    return torch.cuda.is_available()


if not _has_gpu():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anybody imports triton: GPU kernels then run on the CPU


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if any(item.get_closest_marker("gpu") for item in items) and not _has_gpu():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _define_missing_operators() -> "torch.library.Library":
    """What torchvision registers fake kernels for, although the wheel's binary (built for CUDA) did not load."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


@pytest.fixture(scope="session")
def torchvision() -> Iterator[ModuleType]:
    """torchvision, also on a CPU-only torch where the wheel of the package index cannot be imported as it is."""
    library = None
    try:
        module = pytest.importorskip("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for half_imported in [name for name in sys.modules if name.startswith("torchvision")]:
            del sys.modules[half_imported]
        library = _define_missing_operators()
        module = importlib.import_module("torchvision")
    yield module
    del library  # alive until here, for its definitions go with it
