"""Entrances: a tensor is turned once, where it enters; the shortcut lies like the rest, forward and backward."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from campfire import decompress_, fuse
from campfire.kernels.formats import is_format, to_format
from campfire.kernels.turning import turn
from campfire.mask import Mask
from campfire.nn import SparseConv2d
from campfire.nn.entrances import Entrance, close_, enter, entrances, open_


class Block(nn.Module):
    """x plus a sparse convolution of it."""

    def __init__(self) -> None:
        super().__init__()
        keep = torch.rand(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)) < 0.5
        self.conv = SparseConv2d.of(nn.Conv2d(8, 8, 3, padding=1), Mask(keep))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv(x) + x)


class Noting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.formats: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.formats.append(is_format(x, "chwn"))
        return x


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.Sequential(Noting(), Block()), nn.Flatten(), nn.Linear(8 * 36, 2))


def images() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def test_gradients_come_back_in_the_format_they_left() -> None:
    x = to_format(torch.randn(2, 3, 4, 4), "nhwc").requires_grad_()
    y = turn(x, "chwn")
    assert torch.equal(x, y)
    weights = torch.randn_like(y)
    (y * weights).sum().backward()
    assert x.grad is not None
    assert is_format(x.grad, "nhwc")
    assert torch.equal(x.grad, weights)


def test_what_an_entrance_does_and_what_survives_copies() -> None:
    model, x = net(), images()
    expected = model(x)
    open_(model, {"1": "chwn"}, torch.float32)
    for twin in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(x), expected)
        assert twin[1][0].formats[-1]
    close_(model, torch.bfloat16)
    assert entrances(model) == {"1": "chwn"}
    open_(model, {"1": "nhwc"}, torch.float32)
    assert entrances(model) == {"1": "nhwc"}
    assert list(model.state_dict()) == list(net().state_dict())
    decompress_(model)
    assert entrances(model) == {}


@pytest.mark.parametrize("x", [torch.zeros(2, 3), torch.zeros(2, 3, 4, 4).double(), "text", torch.zeros(0, 3, 4, 4)])
def test_other_inputs_pass_as_they_are(x: object) -> None:
    assert enter(x, "chwn", torch.float32) is x
    assert Entrance("chwn", torch.float32)(nn.Identity(), ()) is None


def test_autocast_decides_the_dtype() -> None:
    x = torch.zeros(2, 3, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert enter(x, "chwn", torch.float32) is x
        assert is_format(enter(x, "chwn", torch.bfloat16), "chwn")


def test_fused_copies_turn_on_the_edge() -> None:
    model, x = net().eval(), images()
    expected = model(x)
    open_(model, {"1": "chwn"}, torch.float32)
    fused = fuse(model)
    turned = [node for node in fused.graph.nodes if node.target is enter]
    assert len(turned) == 1
    assert {node.name for node in turned[0].users} >= {"_1_1_conv", "add"}
    torch.testing.assert_close(fused(x), expected)


def test_compiled_code_has_no_breaks() -> None:
    model, x = net(), images()
    model[1][0] = nn.Identity()
    expected = model(x).detach()
    open_(model, {"1": "chwn"}, torch.float32)
    y = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(y.detach(), expected)
    y.sum().backward()
    assert model[0].weight.grad is not None
