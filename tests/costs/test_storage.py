"""The storage model against every figure of Mao et al. 2017, and bytes of bit masks."""

import pytest
import torch
from mao_tables import ALEXNET, DENSITY, FC

from campfire.costs.grains import GRAINS, sparsity_by_grain, unit_size, whole_grain
from campfire.costs.storage import bit_mask_bytes, mao_bits, storage_bits
from campfire.structures import named

PERCENT = {  # of dense storage: convolutions, total
    ("nips15", "fine"): (55.61, 16.72),
    ("nips15", "vector"): (42.77, 16.23),
    ("nips15", "kernel"): (38.89, 16.08),
    ("nips16", "fine"): (48.28, 8.47),
    ("nips16", "vector"): (37.09, 8.05),
    ("nips16", "kernel"): (33.74, 7.92),
    ("ours", "fine"): (36.44, 12.60),
    ("ours", "vector"): (27.96, 12.28),
    ("ours", "kernel"): (25.46, 12.18),
}
SAME_ACCURACY = {  # share of the kept weights in 1x1 layers; density and storage of kernel, vector, fine (table T-M2)
    "VGG-16": (0, (0.444, 46.87), (0.307, 35.82), (0.270, 40.50)),
    "ResNet-50": (0.452, (0.613, 77.02), (0.400, 52.69), (0.371, 55.65)),
    "DenseNet-121": (0.7245, (0.355, 48.90), (0.311, 43.79), (0.266, 39.90)),
}


@pytest.mark.parametrize(("column", "grain"), PERCENT)
def test_alexnet(column: str, grain: str) -> None:
    convs, fcs = DENSITY[column]
    bits = sum(
        storage_bits(d * x.weights, unit_size(grain, (x.k, x.c, x.r, x.r))) for x, d in zip(ALEXNET, convs, strict=True)
    )
    dense = sum(x.weights for x in ALEXNET)
    rest = sum(storage_bits(d * n) for n, d in zip(FC, fcs, strict=True))  # linear layers are always fine-grained
    found = 100 * bits / (8 * dense), 100 * (bits + rest) / (8 * (dense + sum(FC)))
    assert found == pytest.approx(PERCENT[column, grain], abs=0.005)


def test_the_sizes_of_alexnet() -> None:
    assert [x.weights for x in ALEXNET] == [34_848, 307_200, 884_736, 663_552, 442_368]
    assert FC == [37_748_736, 16_777_216, 4_096_000]
    assert sum(x.macs for x in ALEXNET) == 665_784_864


def test_what_an_index_adds_to_3x3_layers() -> None:
    units = [unit_size(grain, (8, 8, 3, 3)) for grain in ("fine", "vector", "kernel")]
    assert [storage_bits(9, n) / 72 for n in units] == pytest.approx([1.5, 7 / 6, 19 / 18])


@pytest.mark.parametrize("net", SAME_ACCURACY)
def test_storage_at_the_same_accuracy(net: str) -> None:
    share, *columns = SAME_ACCURACY[net]
    for unit, (density, percent) in zip((9, 3, 1), columns, strict=True):
        bits = storage_bits(density * share) + storage_bits(density * (1 - share), unit)
        assert 100 * bits / 8 == pytest.approx(percent, abs=0.01)


def test_vectors_store_less_than_single_weights_below_the_crossover() -> None:
    """d1 (1 + .5 / S) < 1.5 d0"""
    for d0, d1 in ((0.3, 0.38), (0.3, 0.39)):
        assert (storage_bits(d1, 3) < storage_bits(d0)) == (d1 * (1 + 0.5 / 3) < 1.5 * d0)


@pytest.mark.parametrize("grain", GRAINS)
def test_the_grain_of_a_mask(grain: str) -> None:
    structure, shape = named(grain), (16, 8, 3, 3)
    keep = structure.project(torch.rand(shape), structure.count(shape, 0.75), {}, torch.ones(shape, dtype=torch.bool))
    assert whole_grain(keep) == grain
    assert sparsity_by_grain(keep)[grain] == pytest.approx(0.75)
    assert mao_bits(keep) == storage_bits(288, unit_size(grain, shape))
    units = 16 * 8 * 9 // unit_size(grain, shape)
    assert bit_mask_bytes(keep, value_bits=16) == 2 * 288 + -(-units // 8)


def test_masks_at_the_edge() -> None:
    dense, empty = torch.ones(4, 4, 3, 3, dtype=torch.bool), torch.zeros(4, 4, 3, 3, dtype=torch.bool)
    assert (whole_grain(dense), mao_bits(dense), bit_mask_bytes(dense)) == ("dense", 8 * 144, 4 * 144)
    assert (whole_grain(empty), mao_bits(empty), bit_mask_bytes(empty)) == ("filter", 0, 1)
    pixel = torch.eye(4).bool()[:, :, None, None]
    assert whole_grain(pixel) == "fine"  # a kernel of one weight
    assert mao_bits(pixel) == 4 * 12
