"""The dense path unpacks once in a step, never uses a weight that has changed, and keeps none."""

import gc
import weakref

import pytest
import torch
from torch import nn

from campfire.kernels.choice import Choice
from campfire.kernels.places import Places
from campfire.mask import Mask
from campfire.nn import SparseConv2d


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[torch.Tensor]]:
    """The dense weights that were unpacked."""
    found: list[weakref.ref[torch.Tensor]] = []
    put = Places.put

    def noting(self: Places, value: torch.Tensor) -> torch.Tensor:
        dense = put(self, value)
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
    y = sparse(x)  # its input wants no gradient
    assert len(made) == 3
    assert not any(weight() is not None for weight in made)
    y.sum().backward()


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
