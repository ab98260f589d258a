"""The dense path unpacks once in a step, never uses a weight that has changed, and keeps none."""

import gc
import weakref

import pytest
import torch
from torch import nn

from campfire.kernels.choice import Choice
from campfire.kernels.formats import is_format, to_format
from campfire.kernels.ops import conv
from campfire.kernels.places import Places
from campfire.mask import Mask
from campfire.nn import SparseConv2d


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[torch.Tensor]]:
    """The dense weights that were unpacked."""
    found: list[weakref.ref[torch.Tensor]] = []
    put = Places.put

    def noting(self: Places, *arguments: object) -> torch.Tensor:
        dense = put(self, *arguments)
        found.append(weakref.ref(dense))
        return dense

    monkeypatch.setattr(Places, "put", noting)
    return found


def layer() -> SparseConv2d:
    torch.manual_seed(0)
    keep = torch.rand(8, 8, 3, 3) < 0.5
    sparse = SparseConv2d.of(nn.Conv2d(8, 8, 3, padding=1), Mask(keep))
    sparse.assign(Choice())
    return sparse


@pytest.mark.parametrize("cast", [False, True])
def test_once_in_a_step(made: list[weakref.ref[torch.Tensor]], cast: bool) -> None:
    sparse, x = layer(), torch.randn(2, 8, 6, 6, requires_grad=True)
    for step in (1, 2):
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            y = sparse(x)
        y.float().sum().backward()
        assert len(made) == step
        gc.collect()
        assert not any(weight() is not None for weight in made)  # y and its graph still live


def test_nothing_is_kept_without_gradients(made: list[weakref.ref[torch.Tensor]]) -> None:
    sparse, x = layer(), torch.randn(2, 8, 6, 6)
    for run in (torch.no_grad, torch.inference_mode):
        with run():
            sparse(x)
    assert len(made) == 2
    assert not any(weight() is not None for weight in made)


def test_one_call_gives_both_gradients() -> None:
    """As of a dense layer: no operators of ours but the unpacking and the picking of values."""
    sparse, x = layer(), torch.randn(2, 8, 6, 6, requires_grad=True)
    with torch.profiler.profile() as profile:
        sparse(x).sum().backward()
    calls = {event.key: event.count for event in profile.key_averages()}
    assert calls["aten::convolution_backward"] == 1
    assert not any(name.startswith("campfire::") for name in calls)
    weight = sparse.weight.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    z = x.detach().requires_grad_()
    nn.functional.conv2d(z, weight, sparse.bias, padding=1).sum().backward()
    torch.testing.assert_close(x.grad, z.grad, rtol=0, atol=0)
    torch.testing.assert_close(sparse.value.grad, sparse.gather(weight.grad), rtol=0, atol=0)


def test_from_and_to_images_side_by_side() -> None:
    """Where the layer before keeps another format, the gradient comes back in it."""
    sparse, x = layer(), to_format(torch.randn(2, 8, 6, 6), "chwn").requires_grad_()
    y = sparse(x)
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    z = x.detach().contiguous().requires_grad_()
    (expected,) = torch.autograd.grad(sparse(z).square().sum(), z)
    torch.testing.assert_close(dx, expected, rtol=1e-5, atol=1e-5)
    assert is_format(dx, "chwn")


def test_gradients_of_gradients() -> None:
    sparse, x = layer().double(), torch.randn(1, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    sparse.assign(Choice())
    value, passes = sparse.value.detach().requires_grad_(), sparse._passes[torch.float64]

    def run(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return conv(x, value, sparse.bias, passes)

    assert torch.autograd.gradgradcheck(run, (x, value), fast_mode=True)


def test_values_that_changed_are_unpacked_again() -> None:
    sparse, x = layer(), torch.randn(2, 8, 6, 6, requires_grad=True)
    y = sparse(x)
    with torch.no_grad():
        sparse.value.data.mul_(2)  # autograd does not see it
    again = sparse(x)
    torch.testing.assert_close(again, 2 * y - sparse.bias[:, None, None], rtol=1e-4, atol=1e-5)
    (dx,) = torch.autograd.grad(again.sum(), x)
    weight, z = sparse.weight, x.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(nn.functional.conv2d(z, weight, padding=1).sum(), z)
    torch.testing.assert_close(dx, expected, rtol=1e-4, atol=1e-5)
