"""Where Triton's kernels run in tests: a GPU, or this CPU by its interpreter."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from campfire.native.gpu import serving

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def by_triton() -> Iterator[torch.device]:
    """Within, mask kernels serve the device, and must."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serving, "DEVICES", {DEVICE.type})
        patch.setattr(serving, "_failed", [])
        patch.setenv("CAMPFIRE_NATIVE", "require")
        yield DEVICE
