"""Sparse layers that move, end or are traced while somebody still counts on them."""

import copy
import gc

import pytest
import torch
from nn_cases import conv_pair, images
from torch import Tensor, nn

from campfire.errors import CampfireError, UsageError
from campfire.mask import Mask
from campfire.nn import SparseConv2d


def layer(kernel: str = "auto") -> SparseConv2d:
    """32 outputs by 64 channels, half of them dead by blocks of 32 x 1."""
    torch.manual_seed(0)
    keep = torch.zeros(32, 64, 1, 1, dtype=torch.bool)
    keep[:, ::2] = True
    return SparseConv2d.of(nn.Conv2d(64, 32, 1), Mask(keep), "unit", kernel)


def x(count: int = 2) -> Tensor:
    return torch.randn(count, 64, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kernel", ["reference", "compact", "lanes", "blocks"])
@pytest.mark.parametrize("what", ["moved", "gone"])
def test_a_graph_outlives_its_layer(kernel: str, what: str) -> None:
    one = layer(kernel)
    one(x()).square().sum().backward()
    wanted, one.value.grad = one.value.grad.clone(), None
    value, loss = one.value, one(x()).square().sum()
    if what == "moved":
        one.to("cpu")
    else:
        del one
    gc.collect()
    loss.backward()
    assert torch.equal(value.grad, wanted)


def test_compiled_before_it_ever_ran() -> None:
    torch._dynamo.reset()
    one = layer("reference")
    y = torch.compile(one, backend="aot_eager")(x())
    torch.testing.assert_close(y, layer("reference")(x()))


def test_on_the_meta_device_and_back() -> None:
    one = layer()
    there = copy.deepcopy(one).to("meta")
    assert there(x().to("meta")).shape == (2, 32, 6, 6)
    with pytest.raises(UsageError, match="has lost its indices, which are in no state dict"):
        there.to_empty(device="cpu")


def test_emptied_values_keep_their_places() -> None:
    one, other = layer(), layer()
    one.to_empty(device="cpu")
    one.load_state_dict(other.state_dict())
    assert torch.equal(one(x()), other(x()))


def test_an_empty_batch() -> None:
    keep = torch.zeros(32, 64, 3, 3, dtype=torch.bool)
    keep[::2, ::2] = True
    one = SparseConv2d.of(nn.Conv2d(64, 32, 3), Mask(keep), "shrunk", "compact")
    nothing = torch.zeros(0, 64, 6, 6, requires_grad=True)
    y = one(nothing)
    y.sum().backward()
    assert (y.shape, nothing.grad.shape) == ((0, 32, 4, 4), (0, 64, 6, 6))
    assert not one.value.grad.any()


def test_a_bias_in_one_place() -> None:
    """Native code reads as many numbers as there are outputs, wherever the tensor says that they lie."""
    one, other = layer("blocks"), layer("blocks")
    one.bias = nn.Parameter(torch.full((1,), 0.5).expand(32))
    other.bias = nn.Parameter(torch.full((32,), 0.5))
    assert torch.equal(one(x()), other(x()))


def test_a_weight_that_is_read_has_a_gradient() -> None:
    sparse, dense = conv_pair()
    for one in (sparse, dense):
        nn.functional.conv2d(images(), one.weight * 2, padding=1).square().sum().backward()
    torch.testing.assert_close(sparse.value.grad, sparse.gather(dense.weight.grad))


def test_a_program_of_another_process_is_refused() -> None:
    """Its number is that of whatever layer has it here."""
    one, other = (
        layer("lanes"),
        SparseConv2d.of(nn.Conv2d(64, 32, 1), Mask(torch.ones(32, 64, 1, 1).bool()), "csr", "lanes"),
    )
    number = other._passes[torch.float32].number
    with pytest.raises(CampfireError, match="made of a compressed model in another process; use campfire export"):
        torch.ops.campfire.conv(x(), one.packed.parts["value"], one.bias, number)
    with pytest.raises(CampfireError, match="moved, tuned or deleted since this program was made"):
        torch.ops.campfire.conv(x(), one.packed.parts["value"], one.bias, 2**40)


def test_a_trace_unpacks_each_time() -> None:
    one = layer("reference")
    with torch.no_grad():
        traced = torch.jit.trace(one, x(), check_trace=False)
        wanted = one(x(3))
        junk = [torch.full((32, 64, 1, 1), 7.0) for _ in range(8)]
        del junk
        torch.testing.assert_close(traced(x(3)), wanted)
