"""Max-pooling that keeps images side by side, against the library's, and the exchange of layers of a whole model."""

import copy

import pytest
import torch
from torch import Tensor, nn

from campfire import native
from campfire.kernels.formats import is_format, to_format
from campfire.nn import BatchNorm2d, MaxPool2d, keep_formats_, library_layers_

SIZES = [(2, 3, 5, 7), (16, 17, 4, 4), (17, 16, 9, 3), (33, 4, 8, 6)]  # images, channels, height, width
POOLS = [(3, 2, 1), (2, 2, 0), (3, 1, 1), (3, 3, 0)]  # taps, stride, padding


@pytest.fixture(autouse=True)
def _native() -> None:
    if native.library("lanes_layers") is None:
        pytest.skip("no compiler")


def image(size: tuple[int, ...], seed: int = 0) -> Tensor:
    """With ties."""
    return (torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 2).round()


def both(run: nn.Module, dense: nn.Module, x: Tensor, form: str = "chwn") -> None:
    found = []
    for layer, given in ((dense, x.clone()), (run, to_format(x, form) if form else x.clone())):
        given.requires_grad_()
        y = layer(given)
        y.backward(image(tuple(y.shape), 3))
        found.append((y.detach(), given.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)
    assert not form or is_format(found[1][0], form)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("pool", POOLS)
def test_with_ties(size: tuple[int, ...], pool: tuple[int, int, int]) -> None:
    if min(size[2:]) + 2 * pool[2] >= pool[0]:
        both(MaxPool2d(*pool), nn.MaxPool2d(*pool), image(size))


def test_rounding_up_where_windows_fit() -> None:
    both(MaxPool2d(2, ceil_mode=True), nn.MaxPool2d(2, ceil_mode=True), image((16, 3, 4, 6)))


def test_a_nan_is_the_greatest() -> None:
    x = image((16, 2, 4, 4))
    x[3, 1, 2, 2] = float("nan")
    y = MaxPool2d(2)(to_format(x, "chwn"))
    assert y.isnan().sum() == 1
    assert y[3, 1, 1, 1].isnan()


@pytest.mark.parametrize(
    "options", [{"kernel_size": (3, 2)}, {"kernel_size": 2, "dilation": 2}, {"kernel_size": 3, "ceil_mode": True}]
)
def test_other_windows_are_the_librarys_own_work(options: dict[str, int]) -> None:
    x = image((16, 3, 8, 8))
    assert torch.equal(MaxPool2d(**options)(to_format(x, "chwn")), nn.MaxPool2d(**options)(x))


def test_other_inputs_are_the_librarys_own_work() -> None:
    x = image((4, 3, 8, 8))
    for y in (x, x[0], x.double(), x.contiguous(memory_format=torch.channels_last)):
        assert torch.equal(MaxPool2d(3, 2, 1)(y), nn.MaxPool2d(3, 2, 1)(y))
    both(MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, 1), x, form="")
    assert len(MaxPool2d(2, return_indices=True)(to_format(x, "chwn"))) == 2


def test_no_graph_break_and_operators_are_what_they_say() -> None:
    x = to_format(image((16, 3, 6, 6)), "chwn")
    compiled = torch.compile(MaxPool2d(3, 2, 1), backend="aot_eager", fullgraph=True)
    both(compiled, nn.MaxPool2d(3, 2, 1), x)
    y, taps = torch.ops.campfire.max_pool(x, 3, 2, 1)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.campfire.max_pool.default, (x, 3, 2, 1), test_utils=checks)
    torch.library.opcheck(
        torch.ops.campfire.max_pool_back.default, (y, taps, list(x.shape), 3, 2, 1), test_utils=checks
    )


class Special(nn.BatchNorm2d):
    """A layer of somebody else's."""


def test_the_exchange_of_a_model() -> None:
    shared = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), shared, nn.MaxPool2d(2), nn.Sequential(shared, Special(4)))
    before, twin, x = list(model.state_dict()), copy.deepcopy(model), image((16, 3, 9, 9))
    assert keep_formats_(model) is model
    assert [type(m) for m in model[1:3]] == [BatchNorm2d, MaxPool2d]
    assert type(model[3][1]) is Special
    assert model[3][0] is shared
    assert list(model.state_dict()) == before
    assert torch.equal(model(x), twin(x))
    assert [type(m) for m in library_layers_(model)] == [type(m) for m in twin]
