"""Which kernel serves a layer where nobody chose one."""

import pytest
import torch

from campfire import native
from campfire.kernels import Conv, serving
from campfire.mask import Mask
from campfire.packed import pack

SHAPE, CPU = (32, 4, 3, 3), torch.device("cpu")


def name_for(layout: str, tile: tuple[int, ...] | None = None, dtype: torch.dtype = torch.float32) -> str:
    options = {} if tile is None else {"tile": tile}
    packed = pack(torch.randn(SHAPE), Mask(torch.ones(SHAPE, dtype=torch.bool)), layout, **options)
    return serving(packed, Conv(1, 1), dtype, CPU).name


def test_lanes_serve_what_blocks_do_not() -> None:
    if native.library("lanes") is None:
        pytest.skip("no compiler")
    assert name_for("csr") == "lanes"
    assert name_for("tap") == "lanes"  # whole kernels
    assert name_for("unit", (8, 1, 3, 3)) == "lanes"
    assert name_for("unit", (16, 1, 3, 3)) == "blocks"
    assert name_for("grouped", (32, 4, 3, 3)) == "blocks"
    assert name_for("csr", dtype=torch.float64) not in ("lanes", "blocks")
