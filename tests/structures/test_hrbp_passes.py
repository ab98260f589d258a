"""Blocks of rows x channels x taps stay dense in all three passes (methods.md U-8 and U-9); others shatter."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from campfire.compress.compressing import best_layout
from campfire.kernels import KERNELS, Conv
from campfire.mask import Mask
from campfire.nn import SparseConv2d
from campfire.packed import Packed, pack
from campfire.report.supports import Supports
from campfire.structures import named

TAPS = [(r, s) for r in range(3) for s in range(3)]
BLOCKS = [  # outputs, inputs, taps
    ([0, 3, 5, 9], [1, 4, 7], [(0, 0), (0, 1), (1, 1), (2, 2)]),
    ([1, 2, 8, 15], [0, 4, 11], [(1, 0), (1, 1), (1, 2)]),
    ([4, 6, 7, 14], [2, 7, 8, 10], TAPS),
]
CASES = [(1, 1, 8), (2, 1, 9), (2, 1, 8)]  # stride, padding, height and width


def supports(columns: Tensor) -> tuple[int, int, float]:
    """Of a block's columns, bool [C, taps]: inputs touched, different sets of taps among them, density of their box."""
    told = Supports.of(columns)
    return told.inputs, told.sets, told.living / told.box


def test_u8_blocks_have_one_support() -> None:
    whole, common = torch.zeros(2, 64, 9, dtype=torch.bool)
    whole[:8] = True
    common[:18, [1, 3, 4, 5]] = True
    assert supports(whole) == (8, 1, 1.0)
    assert supports(common) == (18, 1, 1.0)


@pytest.mark.parametrize(
    ("columns", "rows", "different", "density"),
    [(36, 28.4, 14.4, 0.14), (72, 44.9, 26.0, 0.18), (144, 59.3, 46.3, 0.27), (288, 63.9, 60.2, 0.50)],
)
def test_u8_single_weights_shatter(columns: int, rows: float, different: float, density: float) -> None:
    """Columns drawn at random, as elementwise regrouping leaves them: means of 300 draws."""
    generator = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(300):
        chosen = torch.zeros(576, dtype=torch.bool)
        chosen[torch.randperm(576, generator=generator)[:columns]] = True
        drawn.append(supports(chosen.view(64, 9)))
    mean = torch.tensor(drawn).mean(0).tolist()
    assert mean[0] == pytest.approx(64 * (1 - math.comb(567, columns) / math.comb(576, columns)), rel=0.02)
    assert mean == [pytest.approx(rows, abs=0.5), pytest.approx(different, abs=0.5), pytest.approx(density, abs=0.01)]


def test_our_blocks_have_one_support_and_elementwise_ones_of_their_budget_do_not() -> None:
    score = torch.rand(128, 64, 3, 3, generator=torch.Generator().manual_seed(0)).pow(4)
    budget = 72
    for spec in ("hrbp:channels=8,guard=none", "hrbp++:channels=18,guard=none"):
        structure = named(spec)
        one_block = 1 - budget * 32 / score.numel()  # in the first kind of blocks at least one lives
        plan = structure.plan(score, one_block)
        keep = structure.project(score, structure.count((128, 64, 3, 3), one_block), plan, torch.ones_like(score) > 0)
        group = keep[keep.flatten(1).any(1)]
        assert len(group) == 32
        assert supports(group[0].flatten(1))[1:] == (1, 1.0)
    rows = score[plan["order"][:32]].sum(0).flatten()  # elementwise: the best columns of the same rows
    columns = torch.zeros(576, dtype=torch.bool)
    columns[rows.topk(budget).indices] = True
    touched, different, density = supports(columns.view(64, 9))
    assert touched > 36
    assert different > 18
    assert density < 0.25


@pytest.mark.parametrize(("stride", "padding", "size"), CASES)
def test_u9_blocks_convolve_as_the_dense_layer(stride: int, padding: int, size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.zeros(16, 12, 3, 3, dtype=torch.float64)
    for outputs, inputs, taps in BLOCKS:
        for r, s in taps:
            values = torch.randn(len(outputs), len(inputs), generator=generator, dtype=torch.float64)
            weight[torch.tensor(outputs)[:, None], torch.tensor(inputs), r, s] = values
    x = torch.randn(2, 12, size, size, generator=generator, dtype=torch.float64, requires_grad=True)
    dense = weight.clone().requires_grad_()
    y = conv2d(x, dense, stride=stride, padding=padding)
    dy = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    y.backward(dy)
    y = y.detach()
    assert x.grad is not None
    assert dense.grad is not None
    assert float((_forward(x.detach(), weight, stride, padding, y.shape) - y).abs().max()) <= 1e-12
    assert float((_d_input(dy, weight, stride, padding, x.shape) - x.grad).abs().max()) <= 1e-12
    assert float((_one_correlation(dy, weight, stride, padding, size) - x.grad).abs().max()) <= 1e-12
    d_weight = _d_weight(dy, x.detach(), stride, padding)
    assert float((d_weight - dense.grad * (weight != 0)).abs().max()) <= 1e-12


def _seen(x: Tensor, tap: tuple[int, int], stride: int, padding: int, out: torch.Size) -> Tensor:
    """What a tap reads of an input: [N, C, H', W']."""
    x = pad(x, (padding,) * 4)
    return x[:, :, tap[0] :: stride, tap[1] :: stride][:, :, : out[2], : out[3]]


def _forward(x: Tensor, weight: Tensor, stride: int, padding: int, out: torch.Size) -> Tensor:
    y = x.new_zeros(out)
    for outputs, inputs, taps in BLOCKS:
        for tap in taps:
            block = weight[outputs][:, inputs, *tap]
            y[:, outputs] += torch.einsum("kc,nchw->nkhw", block, _seen(x[:, inputs], tap, stride, padding, out))
    return y


def _d_input(dy: Tensor, weight: Tensor, stride: int, padding: int, size: torch.Size) -> Tensor:
    """The same blocks transposed; inputs that occur in several blocks are summed."""
    dx = dy.new_zeros(size[0], size[1], size[2] + 2 * padding, size[3] + 2 * padding)
    high, wide = ((n - 1) * stride + 1 for n in dy.shape[2:])
    for outputs, inputs, taps in BLOCKS:
        for r, s in taps:
            part = torch.einsum("kc,nkhw->nchw", weight[outputs][:, inputs, r, s], dy[:, outputs])
            dx[:, inputs, r : r + high : stride, s : s + wide : stride] += part
    return dx[:, :, padding : padding + size[2], padding : padding + size[3]]


def _one_correlation(dy: Tensor, weight: Tensor, stride: int, padding: int, size: int) -> Tensor:
    """Outputs and inputs swapped, taps turned round, over the gradient on a grid of zeros."""
    grid = (dy.shape[2] - 1) * stride + 1
    dilated = dy.new_zeros(*dy.shape[:2], grid, grid)
    dilated[:, :, ::stride, ::stride] = dy
    before, extra = 2 - padding, size + 2 * padding - 3 - (dy.shape[2] - 1) * stride
    around = pad(dilated, (before, before + extra, before, before + extra))
    return conv2d(around, weight.transpose(0, 1).flip(2, 3))


def _d_weight(dy: Tensor, x: Tensor, stride: int, padding: int) -> Tensor:
    found = dy.new_zeros(16, 12, 3, 3)
    for outputs, inputs, taps in BLOCKS:
        for tap in taps:
            seen = _seen(x[:, inputs], tap, stride, padding, dy.shape)
            block = torch.einsum("nkhw,nchw->kc", dy[:, outputs], seen)
            found[torch.tensor(outputs)[:, None], torch.tensor(inputs), tap[0], tap[1]] = block
    return found


def made(spec: str, shape: tuple[int, ...], sparsity: float, dtype: torch.dtype) -> tuple[Tensor, Mask]:
    """A random weight, and the mask that a structure makes of it."""
    generator, structure = torch.Generator().manual_seed(0), named(spec)
    weight = torch.randn(shape, generator=generator, dtype=dtype)
    plan = structure.plan(weight.abs(), sparsity)
    keep = structure.project(weight.abs(), structure.count(shape, sparsity), plan, torch.ones_like(weight) > 0)
    return weight * keep, Mask(keep, plan)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("spec", ["hrbp", "hrbp:inputs=neighbours", "hrbp++", "hrbp++:channels=4,taps=5"])
def test_a_sparse_layer_equals_the_dense_one_in_all_passes(spec: str, stride: int) -> None:
    weight, mask = made(spec, (64, 16, 3, 3), 0.75, torch.float64)
    dense = nn.Conv2d(16, 64, 3, stride=stride, padding=1, dtype=torch.float64)
    with torch.no_grad():
        dense.weight.copy_(weight)
    sparse = SparseConv2d.of(dense, mask, best_layout(mask))
    assert sparse.layout == "grouped"
    x = torch.randn(2, 16, 9, 9, dtype=torch.float64)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, z = dense(one), sparse(other)
    dy = torch.randn_like(y)
    y.backward(dy)
    z.backward(dy)
    assert dense.weight.grad is not None
    assert one.grad is not None
    assert other.grad is not None
    assert float((y - z).detach().abs().max()) < 1e-12
    assert float((one.grad - other.grad).abs().max()) < 1e-12
    assert float((sparse.gather(dense.weight.grad) - sparse.value.grad).abs().max()) < 1e-12


@pytest.mark.parametrize(
    ("spec", "tile"),
    [
        ("hrbp", [32, 1, 3, 3]),
        ("hrbp:inputs=neighbours", [32, 4, 3, 3]),
        ("hrbp++", [32, 1, 1, 1]),
        ("hrbp++:channels=4,inputs=neighbours", [32, 4, 1, 1]),
        ("hrbp:rows=64", [32, 1, 3, 3]),
        ("hrbp:rows=128", [32, 1, 3, 3]),
        ("hrbp++:rows=128", [32, 1, 1, 1]),
        ("hrbp:rows=128,inputs=neighbours", [32, 4, 3, 3]),
        ("hrbp:rows=16", [16, 1, 3, 3]),
    ],
)
def test_their_blocks_are_tiles_of_the_grouped_layout_that_kernels_take(spec: str, tile: list[int]) -> None:
    weight, mask = made(spec, (256, 16, 3, 3), 0.75, torch.float32)
    assert best_layout(mask) == "grouped"
    packed = pack(weight, mask, "grouped")
    assert packed.parts["tile"].tolist() == tile
    assert torch.equal(packed.dense(), weight)
    assert _refusals(packed) == []


def _refusals(packed: Packed) -> list[str]:
    reasons = KERNELS["blocks"].why_not(packed, Conv(padding=1), torch.float32, torch.device("cpu"))
    return [r for r in reasons if not r.startswith("native code is off")]


def test_left_over_outputs_need_another_layout() -> None:
    """Groups of 32 and 8: the largest tile of both has 8 outputs, fewer than the block kernels take."""
    weight, mask = made("hrbp", (72, 16, 3, 3), 0.75, torch.float32)
    packed = pack(weight, mask, "grouped")
    assert packed.parts["tile"].tolist() == [8, 1, 3, 3]
    assert _refusals(packed) == ["its vectors are 16 outputs; the tile has 8"]
    _, halves = made("hrbp", (80, 16, 3, 3), 0.75, torch.float32)
    assert pack(weight.new_ones(80, 16, 3, 3), halves, "grouped").parts["tile"].tolist() == [16, 1, 3, 3]
