"""Memory formats: conversions are exact in every direction, in every flavour, and out of native code's reach too."""

import itertools

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from campfire.kernels.formats import FORMATS, empty, is_format, to_format
from campfire.native.flavours import flavour_names

SIZES = [(1, 3, 5, 7), (1, 48, 7, 7), (5, 17, 4, 9), (16, 17, 4, 4), (17, 32, 9, 3), (32, 16, 12, 12), (48, 20, 11, 7)]


def numbered(size: tuple[int, ...]) -> Tensor:
    return torch.arange(torch.tensor(size).prod().item(), dtype=torch.float32).view(size)


def sources(x: Tensor) -> list[Tensor]:
    """The same numbers in NCHW, NHWC, chwn, and with gaps."""
    gaps = torch.zeros(*x.shape[:3], 2 * x.shape[3])[..., ::2].copy_(x)
    return [
        x,
        x.contiguous(memory_format=torch.channels_last),
        x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
        gaps,
    ]


@pytest.mark.parametrize("isa", flavour_names())
@pytest.mark.parametrize("size", SIZES)
def test_exact_in_every_direction(isa: str, size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMPFIRE_ISA", isa)
    for x, name in itertools.product(sources(numbered(size)), FORMATS):
        y = to_format(x, name)
        assert is_format(y, name)
        assert torch.equal(y, x)
        assert to_format(y, name) is y


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_other_dtypes(dtype: torch.dtype) -> None:
    x = numbered((3, 4, 2, 2)).to(dtype)
    for name in FORMATS:
        assert torch.equal(to_format(x, name), x)
        assert is_format(to_format(x, name), name)


def test_autograd_and_fake_tensors_go_through() -> None:
    x = torch.randn(16, 3, 4, 4, requires_grad=True)
    to_format(x, "chwn").sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    with FakeTensorMode():
        assert is_format(to_format(torch.empty(16, 3, 4, 4), "chwn"), "chwn")


def test_nothing_to_turn() -> None:
    assert to_format(torch.zeros(0, 3, 4, 4), "chwn").shape == (0, 3, 4, 4)
    assert is_format(empty((2, 3, 4, 5), torch.zeros(1), "nhwc"), "nhwc")
