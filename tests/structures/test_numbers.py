"""Exact numbers of the papers: methods.md U-2 to U-5 and U-13."""

import math

import pytest
import torch
from torch import Tensor

from campfire.mask import Mask
from campfire.structures import named
from campfire.structures.combined import Combined
from campfire.structures.window import Window

RESNET50 = [  # (count, K, C, R): the 53 convolutions
    (1, 64, 3, 7),
    (1, 64, 64, 1), (2, 64, 256, 1), (4, 256, 64, 1), (3, 64, 64, 3),
    (1, 128, 256, 1), (3, 128, 512, 1), (4, 512, 128, 1), (1, 512, 256, 1), (4, 128, 128, 3),
    (1, 256, 512, 1), (5, 256, 1024, 1), (6, 1024, 256, 1), (1, 1024, 512, 1), (6, 256, 256, 3),
    (1, 512, 1024, 1), (2, 512, 2048, 1), (3, 2048, 512, 1), (1, 2048, 1024, 1), (3, 512, 512, 3),
]  # fmt: skip
N, N3 = 23_454_912, 11_317_248


def zeros(spec: str, sparsity: float) -> int:
    """Zeros over all convolutions of ResNet-50 by the structure's declared counts."""
    structure = named(spec)
    shapes = [(n, (k, c, r, r)) for n, k, c, r in RESNET50]
    return sum(n * (math.prod(s) - structure.count(s, sparsity)) for n, s in shapes)


def test_u2_inventory() -> None:
    assert sum(n for n, *_ in RESNET50) == 53
    assert sum(n * k * c * r * r for n, k, c, r in RESNET50) == N
    assert sum(n * k * c * r * r for n, k, c, r in RESNET50 if r == 3) == N3


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [(0.2, 4_690_877), (0.4, 9_381_837), (0.6, 14_072_846), (0.7, 16_418_333), (0.8, 18_763_806), (0.9, 21_109_293)],
)
def test_u2_ck_zeros(sparsity: float, expected: int) -> None:
    assert zeros("ck", sparsity) == expected
    for _, k, c, r in RESNET50:  # and one layer at a time: exact to one kernel
        kernels = named("ck").count((k, c, r, r), sparsity) // (r * r)
        assert kernels == k * c - math.floor(sparsity * k * c + 1e-9)


U3 = {  # target: (z, zeros) in mode target, (z, zeros) in mode campfire
    0.1: (1, 2_471_211, 7, 10_016_043), 0.2: (2, 4_942_438, 7, 11_229_798), 0.3: (3, 7_413_669, 7, 12_443_557),
    0.4: (4, 9_884_896, 7, 13_657_312), 0.5: (5, 12_356_192, 7, 14_871_136), 0.6: (6, 14_827_403, 7, 16_084_875),
    0.7: (7, 17_298_630, 7, 17_298_630), 0.8: (8, 19_769_861, 8, 19_769_861), 0.9: (8, 20_983_616, 8, 20_983_616),
}  # fmt: skip


@pytest.mark.parametrize(("target", "expected"), U3.items())
def test_u3_window_zeros(target: float, expected: tuple[int, int, int, int]) -> None:
    for mode, z, total in (("target", *expected[:2]), ("campfire", *expected[2:])):
        assert Window(mode).zeros(9, target) == z
        assert Window(mode).zeros(9, 0) == 0
        assert zeros(f"window:mode={mode}", target) == total


def test_table_1_true_sparsities() -> None:
    """Campfire, table 1, ResNet-50 v1: .48 .58 .69 .84 to two digits."""
    true = [zeros("window:mode=campfire", t) / N for t in (0.2, 0.4, 0.6, 0.8)]
    assert [round(x, 3) for x in true] == [0.479, 0.582, 0.686, 0.843]
    assert [round(x, 2) for x in true] == [0.48, 0.58, 0.69, 0.84]


@pytest.mark.parametrize(
    ("target", "true", "conv", "with_fc"),
    [(0.2, 0.48, 7.02, 7.11), (0.4, 0.58, 6.96, 7.02), (0.6, 0.69, 7.08, 7.11), (0.8, 0.84, 7.95, 7.96)],
)
def test_u4_zeros_implied_by_table_1(target: float, true: float, conv: float, with_fc: float) -> None:
    def implied(total: int) -> float:
        return 9 * (true * total - (total - N3) * target) / N3

    assert round(implied(N), 2) == conv
    assert round(implied(N + 2048 * 200), 2) == with_fc
    assert abs(implied(N) - Window("campfire").zeros(9, target)) < 0.093  # the table's two digits allow no more


U5 = [  # t, z, windows alone, literal, share of kernels to fill up
    (0.2, 1, 0.1111, 0.1467, 0.1000), (0.4, 2, 0.2222, 0.2844, 0.2286), (0.6, 4, 0.4444, 0.5111, 0.2800),
    (0.7, 5, 0.5556, 0.6178, 0.3250), (0.8, 5, 0.5556, 0.6267, 0.5500), (0.9, 6, 0.6667, 0.7267, 0.7000),
]  # fmt: skip


@pytest.mark.parametrize(("t", "z", "alone", "literal", "share"), U5)
def test_u5_combined(t: float, z: int, alone: float, literal: float, share: float) -> None:
    combined, shape = Combined(), (300, 300, 3, 3)
    assert combined.zeros(9, t) == z
    assert round(z / 9, 4) == alone
    assert round(combined.kernel_share(9, t, goal=t), 4) == share
    size = math.prod(shape)
    assert 1 - Combined(literal=True).count(shape, t) / size == pytest.approx(literal, abs=1e-4)
    assert size - combined.count(shape, t) == math.floor(t * size + 1e-6)  # exactly


def test_u5_count_of_a_layer() -> None:
    """K = C = 64, s = .6, z = 4: 1,146 kernels die; windows take the four zeros that whole kernels cannot."""
    combined, shape = Combined(), (64, 64, 3, 3)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    keep = combined.project(
        score, combined.count(shape, 0.6), combined.plan(score, 0.6), torch.ones(shape, dtype=torch.bool)
    )
    held = keep.sum((2, 3))
    assert int((held == 0).sum()) == 1146
    assert int((~keep).sum()) == math.floor(0.6 * 36_864) == 22_114 + 4
    assert held.unique(return_counts=True)[1].tolist() == [1146, 4, 2946]
    assert held.unique().tolist() == [0, 4, 5]


def test_combined_never_revives_a_kernel_when_windows_jump() -> None:
    """A plain fill-up would have 44 % of the kernels dead at t = .69, and 33 % at .70."""
    combined, shape = Combined(), (32, 32, 3, 3)
    score = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    alive, plan, dead = torch.ones(shape, dtype=torch.bool), combined.plan(score, 0.9), []
    for t in [i / 100 for i in range(1, 91)]:
        keep = combined.project(score, combined.count(shape, t), plan, alive)
        assert not (keep & ~alive).any()
        assert int(keep.sum()) == combined.count(shape, t)
        assert not combined.why_invalid(Mask(keep))
        alive = keep
        dead.append(int((keep.sum((2, 3)) == 0).sum()))
    assert dead == sorted(dead)
    assert 0 <= math.floor(0.7 * 1024) - dead[-1] <= 3  # rounding may spare a kernel or two on the way


def project(spec: str, score: Tensor, sparsity: float) -> Tensor:
    structure, shape = named(spec), tuple(score.shape)
    alive = torch.ones(shape, dtype=torch.bool)
    return structure.project(score, structure.count(shape, sparsity), structure.plan(score, sparsity), alive)


def test_u13_small_masks() -> None:
    maxima = torch.tensor([[0.9, 0.1], [0.4, 0.4]])
    kernels = torch.zeros(2, 2, 3, 3)
    kernels[:, :, 1, 1] = maxima
    assert project("ck", kernels, 0.5)[:, :, 0, 0].int().tolist() == [[1, 0], [0, 1]]  # floor(2); the tie drops index 2

    spike, flat = torch.zeros(9), torch.full((9,), 0.5)
    spike[4] = 0.9
    pair = torch.stack([spike, flat]).view(1, 2, 3, 3)
    assert project("ck", pair, 0.5)[0, :, 0, 0].tolist() == [True, False]  # max keeps A
    assert project("kernel", pair, 0.5)[0, :, 0, 0].tolist() == [False, True]  # the sum keeps B

    ramp = torch.arange(1.0, 10).view(1, 1, 3, 3)
    assert project("window", ramp, 0.7).flatten().nonzero().flatten().tolist() == [7, 8]  # z = 7
    assert project("vector", ramp, 0.67)[0, 0].any(1).tolist() == [False, False, True]  # the row with sum 24

    fc = torch.rand(4, 50, 1, 1, generator=torch.Generator().manual_seed(0)) + 1
    fc[2] *= 1e-3  # one output with all the smallest weights keeps its largest
    kept = project("fine-fc", fc, 0.9)[2].flatten()
    assert kept.nonzero().flatten().tolist() == [int(fc[2].argmax())]


def test_block_edges_are_exact() -> None:
    """10 x 256 in blocks of 4: 128 whole blocks and 64 of height 2; each kind loses floor(.7 n)."""
    keep = project("block", torch.rand(10, 256, 1, 1, generator=torch.Generator().manual_seed(0)), 0.7)
    assert int((~keep).sum()) == 89 * 16 + 44 * 8
    assert keep[8:].any(0).sum() == 20 * 4


def test_two_tier_is_exact_and_has_both_tiers() -> None:
    keep = project("two-tier:share=0.5", torch.rand(64, 64, 1, 1, generator=torch.Generator().manual_seed(0)), 0.8)
    assert int((~keep).sum()) == math.floor(0.8 * 4096)
    blocks = keep.view(16, 4, 16, 4).sum((1, 3))
    assert int((blocks == 0).sum()) >= math.floor(0.4 * 256)
    assert ((blocks > 0) & (blocks < 16)).any()
    assert keep.view(64, -1).any(1).all()
