"""Row orders that readers take over: the fused copy computes what the model does, whatever the orders and who reads them."""

import pytest
import torch
from fusion_nets import CHANNELS, RUNS, Net, assert_same, by_blocks, images, stir_
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from campfire.fusion.absorbing import order_of, renumbered
from campfire.mask import Mask
from campfire.models.resnet import Bottleneck, ResNet
from campfire.nn import SparseConv2d
from campfire.structures import named


def regrouped(dense: nn.Conv2d, order: torch.Tensor | None = None) -> SparseConv2d:
    """Half of its tiles of 16 outputs in an order x one input, and no tile more."""
    outputs, inputs = dense.weight.shape[:2]
    order = torch.randperm(outputs) if order is None else order
    rows = (torch.rand(outputs // 16, inputs, 1, 1) < 0.5).repeat_interleave(16, 0)
    keep = torch.empty_like(rows).index_copy_(0, order, rows).expand(dense.weight.shape).clone()
    return by_blocks(SparseConv2d.of(dense, Mask(keep, {"order": order}), "grouped", kernel="reference"))


def regrouped_(model: nn.Module, structure: str | None = None) -> nn.Module:
    """Every convolution but the first and those of fewer than 32 outputs, by a structure at 60 % or in random orders."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) is not nn.Conv2d or child.in_channels == 3 or child.out_channels % 16:
                continue
            if structure is None:
                setattr(parent, name, regrouped(child))
                continue
            made, score = named(structure), child.weight.detach().abs()
            plan, count = made.plan(score, 0.6), made.count(tuple(score.shape), 0.6)
            keep = made.project(score, count, plan, torch.ones_like(score, dtype=torch.bool))
            setattr(parent, name, by_blocks(SparseConv2d.of(child, Mask(keep, plan), "grouped", kernel="reference")))
    return model


@pytest.mark.parametrize("structure", ["hrbp:rows=16", "hrbp:rows=16,inputs=neighbours", "hrbp++:rows=16", None])
def test_bottlenecks(structure: str | None) -> None:
    torch.manual_seed(0)
    net = regrouped_(stir_(ResNet(Bottleneck, (2, 1), num_classes=5, planes=(32, 64))), structure)
    report = assert_same(net, images(2, 3, 64)).report
    ordered = {name for name, layer in net.named_modules() if order_of(layer) is not None}
    inside = {name for name in ordered if name.endswith(("conv1", "conv2"))}
    assert len(inside) >= 5
    assert inside <= set(report.absorbed)
    assert report.absorbed["layer1.0.conv2"] == "layer1.0.conv3"
    sums = [name for name in ordered - inside if name.startswith("layer1")]
    assert sum(name in report.absorbed for name in sums) == 1, "one of the orders that meet in sums"
    assert sum("has another" in report.restored.get(name, "") for name in sums) == len(sums) - 1
    assert "wants them so" in report.restored["layer2.0.conv3"]
    assert len(str(report).splitlines()) == 1


@given(name=st.sampled_from(sorted(RUNS)), seed=st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_every_order_of_layers_and_rows(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    net = stir_(Net(RUNS[name][0]))
    net.a, net.b = regrouped(net.a), regrouped(net.b)
    model = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), net, nn.ReLU(), nn.Conv2d(CHANNELS, 4, 1))
    assert_same(model, images(2, 3))


def chain(last: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 32, 1), nn.ReLU(), regrouped(nn.Conv2d(32, 32, 3)), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, nn.Sigmoid(), last)


@pytest.mark.parametrize(
    "last", [nn.Conv2d(32, 4, 1), nn.Conv2d(32, 4, 1).to(memory_format=torch.channels_last)], ids=["nchw", "nhwc"]
)
def test_a_dense_reader(last: nn.Module) -> None:
    assert assert_same(chain(last), images(2, 3)).report.absorbed == {"2": "6"}


def test_readers_in_other_layouts() -> None:
    for layout, keep in (("csr", torch.rand(8, 32, 1, 1) < 0.5), ("unit", torch.rand(1, 32, 1, 1) < 0.5)):
        mask = Mask(keep.expand(16 if layout == "unit" else 8, -1, -1, -1).clone())
        last = SparseConv2d.of(nn.Conv2d(32, len(mask.keep), 1), mask, layout, kernel="reference")
        assert assert_same(chain(last), images(2, 3)).report.absorbed == {"2": "6"}


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (nn.Conv2d(32, 32, 1, groups=4), "_6 wants them so"),
        (nn.Flatten(), "_6 wants them so"),
        (nn.Softmax(1), "_6 wants them so"),
        (nn.Identity(), "output wants them so"),
    ],
)
def test_readers_that_cannot_follow(last: nn.Module, why: str) -> None:
    report = assert_same(chain(last), images(2, 3)).report
    assert not report.absorbed
    assert report.restored == {"2": why}
    assert f"1 restored (2: {why})" in str(report)


def test_a_layer_that_is_called_twice_keeps_its_order() -> None:
    net = chain(nn.Conv2d(32, 4, 1))
    report = assert_same(nn.Sequential(*net[:3], net[2], *net[3:]), images(2, 3, 8)).report
    assert list(report.restored) == []
    assert list(report.absorbed) == []


def test_channels_of_a_gate_are_not_those_of_what_it_opens() -> None:
    """A sum with one channel, which is spread over all."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = regrouped(nn.Conv2d(3, 32, 1)), nn.Conv2d(3, 1, 1), nn.Conv2d(32, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.a(x) + self.b(x))

    torch.manual_seed(0)
    assert assert_same(Gated(), images(2, 3)).report.restored == {"a": "b has another number of channels"}


@given(seed=st.integers(0, 2**31), axis=st.integers(0, 1))
@settings(max_examples=10, deadline=None)
def test_renumbered(seed: int, axis: int) -> None:
    torch.manual_seed(seed)
    layer, order = regrouped(nn.Conv2d(32, 32, 3)), torch.randperm(32)
    moved = renumbered(layer, order, axis)
    assert moved is not None
    assert torch.equal(moved.weight, layer.weight.index_select(axis, order))
    assert torch.equal(moved.mask.keep, layer.mask.keep.index_select(axis, order))
