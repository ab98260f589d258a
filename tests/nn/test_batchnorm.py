"""Batch normalisation that keeps images side by side, against the library's in float64."""

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from campfire import native
from campfire.kernels.formats import is_format, to_format
from campfire.nn import BatchNorm2d

SIZES = [(2, 3, 5, 7), (16, 17, 4, 4), (17, 16, 9, 3), (33, 4, 26, 26)]  # images, channels, height, width


@pytest.fixture(autouse=True)
def _native() -> None:
    if native.library("lanes_layers") is None:
        pytest.skip("no compiler")


def image(size: tuple[int, ...], seed: int = 0) -> Tensor:
    return to_format(3 + torch.randn(size, generator=torch.Generator().manual_seed(seed)), "chwn")


def layer(channels: int, **options: object) -> nn.BatchNorm2d:
    found = nn.BatchNorm2d(channels, **options)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for i, t in enumerate((found.weight, found.bias, found.running_mean, found.running_var)):
            if t is not None:
                t.copy_(torch.linspace(0.5 + i, 1.5, channels))
    return found


def near(got: Tensor, exact: Tensor, share: float = 1e-5) -> None:
    assert float((got.double() - exact).abs().max()) <= share * float(exact.abs().max()) + 1e-7


def same_as_the_library(dense: nn.BatchNorm2d, size: tuple[int, ...], steps: int = 2) -> None:
    exact, own = copy.deepcopy(dense).double(), BatchNorm2d.of(copy.deepcopy(dense))
    for step in range(steps):
        x, dy = image(size, step).requires_grad_(), image(size, 9)
        far = x.detach().double().requires_grad_()
        y, wanted = own(x), exact(far)
        assert is_format(y, "chwn")
        y.backward(dy)
        wanted.backward(dy.double())
        near(y.detach(), wanted.detach())
        near(x.grad, far.grad, 1e-4)
    for a, b in zip(own.parameters(), exact.parameters(), strict=True):
        near(a.grad, b.grad, 1e-4)
    for a, b in zip(own.buffers(), exact.buffers(), strict=True):
        near(a, b)


@pytest.mark.parametrize("size", SIZES)
def test_a_step_of_training(size: tuple[int, ...]) -> None:
    same_as_the_library(layer(size[1]), size)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.3, None])
@pytest.mark.parametrize("tracks", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_every_option(affine: bool, momentum: float | None, tracks: bool, training: bool) -> None:
    dense = layer(6, affine=affine, momentum=momentum, track_running_stats=tracks).train(training)
    same_as_the_library(dense, (16, 6, 5, 4), steps=3)
    own = BatchNorm2d.of(dense).requires_grad_(False)
    x = image((16, 6, 5, 4))
    with torch.no_grad():
        y = own(x)
        assert is_format(y, "chwn")
        near(y, copy.deepcopy(dense).double()(x.double()))


def test_any_other_input_is_the_librarys_own_work() -> None:
    for x in (torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)):
        for y in (x, x.double(), x[:1]):
            dense = layer(3).to(y.dtype)
            own = BatchNorm2d.of(copy.deepcopy(dense))
            assert torch.equal(own(y), dense(y))
            assert all(torch.equal(a, b) for a, b in zip(own.buffers(), dense.buffers(), strict=True))
    with pytest.raises(ValueError, match="more than 1 value"):
        BatchNorm2d.of(layer(2))(torch.randn(1, 2, 1, 1))


def test_what_it_shares() -> None:
    dense = layer(3)
    own = BatchNorm2d.of(dense)
    assert own.weight is dense.weight
    assert own.running_mean is dense.running_mean
    assert list(own.state_dict()) == list(dense.state_dict())


def test_no_graph_break() -> None:
    own, size = BatchNorm2d.of(layer(4)), (16, 4, 5, 5)
    compiled = torch.compile(copy.deepcopy(own), backend="aot_eager", fullgraph=True)
    for x in (image(size), torch.randn(size)):
        found = []
        for run in (own, compiled):
            a = x.clone().requires_grad_()
            y = run(a)
            y.square().sum().backward()
            found.append((y.detach(), a.grad))
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*found, strict=True))


def test_operators_are_what_they_say() -> None:
    x, weight, bias = image((16, 3, 4, 4)), torch.rand(3), torch.rand(3)
    _, mean, variance = torch.ops.campfire.norm(x, weight, bias, 1e-5)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.campfire.norm.default, (x, weight, bias, 1e-5), test_utils=checks)
    torch.library.opcheck(torch.ops.campfire.affine.default, (x, weight, bias), test_utils=checks)
    torch.library.opcheck(torch.ops.campfire.norm_back.default, (x, x, weight, 1e-5, mean, variance), test_utils=checks)


def test_threads_agree_bit_for_bit() -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads, _ in itertools.product((1, 2), (0,)):
            torch.set_num_threads(threads)
            x = image((16, 5, 30, 30)).requires_grad_()
            y = BatchNorm2d.of(layer(5))(x)
            y.square().sum().backward()
            found.append((y.detach(), x.grad))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["weight", "bias", "running_mean", "running_var"])
@pytest.mark.parametrize("training", [True, False])
def test_other_types_are_left_to_the_library(name: str, training: bool) -> None:
    own = BatchNorm2d.of(layer(4)).train(training)
    getattr(own, name).data = getattr(own, name).data.double()
    with pytest.raises(RuntimeError, match=r"type|casting"):  # native code would read half of each number
        own(image((16, 4, 5, 5)))
