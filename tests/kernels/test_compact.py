"""Compact dense against float64: dead channels, dead outputs, groups of outputs, in every layout and format."""

import itertools
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import conv2d

from campfire.kernels import KERNELS, Conv
from campfire.kernels.compact import CompactPasses
from campfire.kernels.formats import to_format
from campfire.kernels.row_groups import MOST, RowGroup, row_groups
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack

CPU = torch.device("cpu")
SHAPE = (24, 16, 3, 3)


def masks(seed: int = 0) -> dict[str, Tensor]:
    """bool [K, C, R, S]: dead inputs, dead outputs, both, groups of outputs, one weight."""
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = (torch.rand(n, generator=generator) < 0.5 for n in (SHAPE[1], SHAPE[0]))
    inputs[3] = outputs[5] = True
    some = torch.rand(SHAPE, generator=generator) < 0.6
    kinds = (torch.rand(3, SHAPE[1], generator=generator) < 0.4)[torch.arange(SHAPE[0]) % 3]
    one = torch.zeros(SHAPE, dtype=torch.bool)
    one[7, 2, 1, 0] = True
    return {
        "inputs": some & inputs[:, None, None],
        "outputs": some & outputs[:, None, None, None],
        "both": some & inputs[:, None, None] & outputs[:, None, None, None],
        "groups": kinds[:, :, None, None].expand(SHAPE).clone(),
        "one": one,
        "full": torch.ones(SHAPE, dtype=torch.bool),
        "none": torch.zeros(SHAPE, dtype=torch.bool),
    }


def packed(keep: Tensor, layout: str = "csr", seed: int = 0) -> Packed:
    return pack(torch.randn(keep.shape, generator=torch.Generator().manual_seed(seed)), Mask(keep), layout)


def passes_agree(weight: Packed, conv: Conv, form: str = "nhwc", seed: int = 0) -> None:
    """All passes, within a few times the dense library's own error; what is not written would be NaN."""
    generator = torch.Generator().manual_seed(seed)
    passes, value = KERNELS["compact"].prepare(weight, conv), weight.parts["value"]
    x, bias = (torch.randn(s, generator=generator) for s in ((2, SHAPE[1], 7, 9), SHAPE[:1]))
    results = []
    for dtype in (torch.float64, torch.float32):
        dense = [t.to(dtype).clone().requires_grad_() for t in (x, weight.dense())]
        y = conv2d(*dense, bias.to(dtype), conv.stride, conv.padding, conv.dilation)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))
        y.backward(dy.to(dtype))
        results.append([y.detach(), dense[0].grad, LAYOUTS[weight.layout].gather(weight, dense[1].grad)])
    x, dy = to_format(x, form), to_format(dy, form)
    new = Tensor.new_empty_strided
    with mock.patch.object(Tensor, "new_empty_strided", lambda *a, **k: new(*a, **k).fill_(float("nan"))):
        got = passes.forward(x, value, bias), passes.d_input(dy, value, tuple(x.shape)), passes.d_values(dy, x)
    for name, a, b, c in zip(("forward", "d_input", "d_values"), got, *results, strict=True):
        if b.numel():
            limit = 4 * float((c - b).abs().max()) + 1e-5 * float(b.abs().max())
            assert float((a - b).abs().max()) <= limit, name
        assert a.shape == b.shape


@pytest.mark.parametrize("name", list(masks()))
def test_every_mask(name: str) -> None:
    for seed, (stride, padding, dilation) in enumerate(itertools.product((1, 2), (0, 1, 2), (1, 2))):
        passes_agree(packed(masks(seed)[name]), Conv(stride, padding, dilation), ("nhwc", "chwn")[seed % 2], seed)


@pytest.mark.parametrize("layout", ["unit", "grouped", "shrunk"])
def test_layouts(layout: str) -> None:
    live = masks()["both" if layout == "shrunk" else "groups"]
    keep = live.any(-1, True).any(-2, True)
    keep = (keep.any(1, True) & keep.any(0, True)) if layout == "shrunk" else keep
    passes_agree(packed(keep.expand(SHAPE).contiguous(), layout), Conv(1, 1))


def test_tail_of_a_layer() -> None:
    weight = packed(masks()["both"])
    passes, x, residual = (
        KERNELS["compact"].prepare(weight, Conv(1, 1)),
        torch.randn(2, 16, 5, 4),
        torch.randn(2, 24, 5, 4),
    )
    wanted = (conv2d(x, weight.dense(), padding=1) + residual).relu()
    assert torch.allclose(passes.forward(x, weight.parts["value"], None, residual, relu=True), wanted, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    weight = packed(masks()["groups"])
    passes, value = KERNELS["compact"].prepare(weight, Conv(1, 1)), weight.parts["value"].to(dtype)
    x, dy = torch.randn(2, 16, 5, 4).to(dtype), torch.randn(2, 24, 5, 4).to(dtype)
    got = passes.forward(x, value, None), passes.d_input(dy, value, x.shape), passes.d_values(dy, x)
    assert {t.dtype for t in got} == {dtype}
    reference = KERNELS["reference"].prepare(weight, Conv(1, 1))
    wanted = reference.forward(x, value, None), reference.d_input(dy, value, x.shape), reference.d_values(dy, x)
    for a, b in zip(got, wanted, strict=True):
        assert float((a - b).abs().max()) <= 0.02 * float(b.abs().max())


def test_why_not_tells_what_is_left() -> None:
    kernel, keep = KERNELS["compact"], masks()
    assert kernel.why_not(packed(keep["full"]), Conv(1, 1), torch.float32, CPU) == [
        "dead channels and outputs are few: 100% of the dense arithmetic would be left"
    ]
    assert "groups" in kernel.why_not(packed(keep["both"]), Conv(1, 1, 1, 2), torch.float32, CPU)[0]
    both = packed(keep["both"])
    share = float(keep["both"].any((1, 2, 3)).float().mean() * keep["both"].any(0).any(1).any(1).float().mean())
    assert kernel.work(both, Conv(1, 1)) == pytest.approx(share)
    assert not kernel.why_not(both, Conv(2, 1, 2), torch.bfloat16, CPU)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 20), st.floats(0, 1))
def test_groups_hold_every_output_and_all_it_reads(rows: int, channels: int, kinds: int, density: float) -> None:
    generator = torch.Generator().manual_seed(rows * 100 + channels)
    reads = (torch.rand(kinds, channels, generator=generator) < density)[
        torch.randint(kinds, (rows,), generator=generator)
    ]
    groups = row_groups(reads)
    assert len(groups) <= MOST
    seen = [row for group in groups for row in group.rows.tolist()]
    assert sorted(seen) == reads.any(1).nonzero()[:, 0].tolist()
    for group in groups:
        assert group.channels.tolist() == reads[group.rows].any(0).nonzero()[:, 0].tolist()


def test_few_kinds_of_outputs_are_found_wherever_they_stand() -> None:
    kinds = torch.eye(4).bool().repeat_interleave(4, 1)
    groups = row_groups(kinds[torch.arange(32) % 4])
    assert [group.rows.tolist() for group in groups] == [list(range(k, 32, 4)) for k in range(4)]
    assert sum(group.work for group in groups) == 32 * 4
    assert len(row_groups(torch.rand(100, 64) < 0.5)) == 1


def test_a_wrong_place_is_seen() -> None:
    build = CompactPasses.__init__

    def wrong(self: CompactPasses, weight: Packed, conv: Conv) -> None:
        build(self, weight, conv)
        self.places = self.places.flip(0)

    with mock.patch.object(CompactPasses, "__init__", wrong), pytest.raises(AssertionError, match=r"forward|d_"):
        passes_agree(packed(masks()["both"]), Conv(1, 1))


def test_no_pass_waits_for_its_numbers() -> None:
    """On tensors without numbers, as a GPU's are before it has run: whatever asks for one raises."""
    keep = torch.zeros(32, 16, 3, 3, dtype=torch.bool)
    keep[:12, :5], keep[12:20, 5:9] = True, True
    weight, mode = packed(keep), FakeTensorMode()
    passes = KERNELS["compact"].prepare(weight, Conv(1, 1))
    assert isinstance(passes, CompactPasses)
    assert len(passes.dead) == 12
    tensors = torch.randn(2, 16, 5, 5), torch.randn(2, 32, 5, 5), weight.parts["value"], torch.randn(32)
    x, dy, value, bias = map(mode.from_tensor, tensors)
    passes.groups = [RowGroup(mode.from_tensor(g.rows), mode.from_tensor(g.channels)) for g in passes.groups]
    passes.places, passes.dead = mode.from_tensor(passes.places), mode.from_tensor(passes.dead)
    with mode:
        assert passes.forward(x, value, bias).shape == dy.shape
        assert passes.d_input(dy, value, tuple(x.shape)).shape == x.shape
        assert passes.d_values(dy, x).shape == value.shape
