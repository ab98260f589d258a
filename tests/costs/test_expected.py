"""FLOPs and output references that follow from densities, against every figure derived from Mao et al. 2017."""

import pytest
from mao_tables import ACTIVE, ACTIVE_FC, ALEXNET, DENSITY, FC, VGG, Conv

from campfire.costs import References, expected_references

NOTHING = References(0, 0, 0)
HAN = sum(han * x.weights for x, _, han in VGG) / sum(x.weights for x, _, _ in VGG)


def of(conv: Conv, weights: float, active: float, grain: str) -> References:
    return expected_references(conv.macs, (conv.r, conv.r), weights, active, grain)


def alexnet(column: str, grain: str = "fine") -> list[References]:
    densities = [1.0] * 5 if column == "dense" else DENSITY[column][0]
    return [of(x, d, a, grain) for x, d, a in zip(ALEXNET, densities, ACTIVE, strict=True)]


def vgg(density: float, grain: str, profile: bool = False) -> References:
    wanted = [min(1, han * density / HAN) if profile else density for _, _, han in VGG]
    return sum((of(x, d, a, grain) for (x, a, _), d in zip(VGG, wanted, strict=True)), NOTHING)


@pytest.mark.parametrize(
    ("column", "with_zeros", "without"), [("nips15", 30.3, 41.6), ("nips16", 25.3, 35.0), ("ours", 24.1, 31.4)]
)
def test_flops_of_alexnet(column: str, with_zeros: float, without: float) -> None:
    convs, fcs = DENSITY[column]
    macs = [*(x.macs for x in ALEXNET), *FC]
    products = [
        expected_references(m, (1, 1), d, a).products
        for m, d, a in zip(macs, convs + fcs, ACTIVE + ACTIVE_FC, strict=True)
    ]
    assert sum(macs) == 724_406_816
    assert 100 * sum(products) / sum(macs) == pytest.approx(with_zeros, abs=0.05)
    living = sum(m * d for m, d in zip(macs, convs + fcs, strict=True))
    assert 100 * living / sum(macs) == pytest.approx(without, abs=0.05)


@pytest.mark.parametrize(
    ("column", "products", "rows", "fine", "vector", "merged"),
    [
        ("dense", 451.6, [9.58, 44.79, 44.33, 28.03, 19.54], 146.3, 146.3, (46.9, 46.9, 46.9)),
        ("nips15", 217.1, [9.58, 38.94, 22.56, 13.35, 9.51], 93.9, 58.2, (39.2, 33.3, 17.5)),
        ("nips16", 182.6, [9.58, 40.01, 18.75, 11.77, 8.62], 88.7, 51.4, (36.8, 30.7, 15.4)),
        ("ours", 173.0, [9.58, 32.57, 15.83, 8.75, 6.26], 73.0, 40.7, (32.8, 25.2, 11.6)),
    ],
)
def test_alexnet_in_millions(
    column: str, products: float, rows: list[float], fine: float, vector: float, merged: tuple[float, ...]
) -> None:
    layers = alexnet(column)
    assert [x.row_merge / 1e6 for x in layers] == pytest.approx(rows, abs=0.005)
    total = sum(layers, NOTHING)
    assert (total.products / 1e6, total.row_merge / 1e6) == pytest.approx((products, fine), abs=0.05)
    grains = {grain: sum(alexnet(column, grain), NOTHING) for grain in ("fine", "vector", "kernel")}
    assert grains["vector"].row_merge / 1e6 == pytest.approx(vector, abs=0.05)
    assert [x.kernel_merge / 1e6 for x in grains.values()] == pytest.approx(merged, abs=0.05)


def test_ratios_of_alexnet() -> None:
    dense = sum(alexnet("dense"), NOTHING)
    grains = {grain: sum(alexnet("ours", grain), NOTHING) for grain in ("fine", "vector", "kernel")}
    assert [x.row_merge / dense.row_merge for x in grains.values()] == pytest.approx([0.499, 0.278, 0.278], abs=5e-4)
    assert [x.kernel_merge / dense.kernel_merge for x in grains.values()] == pytest.approx(
        [0.700, 0.538, 0.247], abs=5e-4
    )
    ratio = grains["vector"].row_merge / grains["fine"].row_merge
    assert ratio == pytest.approx(0.558, abs=5e-4)
    assert ratio == pytest.approx(0.572, abs=0.02)  # the slides
    for column, row, whole in (("nips15", 0.642, 0.836), ("nips16", 0.607, 0.786)):
        total = sum(alexnet(column), NOTHING)
        assert (total.row_merge / dense.row_merge, total.kernel_merge / dense.kernel_merge) == pytest.approx(
            (row, whole), abs=5e-4
        )


@pytest.mark.parametrize(
    ("density", "products", "fine", "vector", "ratio", "merged", "slides"),
    [
        (0.401, 3.80, 2.89, 1.87, 0.649, (1.53, 1.27, 0.68), 0.695),
        (0.331, 3.14, 2.50, 1.55, 0.617, (1.45, 1.12, 0.56), 0.672),
        (0.275, 2.61, 2.16, 1.28, 0.594, (1.35, 0.99, 0.47), 0.653),
    ],
)
def test_vgg_in_billions(
    density: float,
    products: float,
    fine: float,
    vector: float,
    ratio: float,
    merged: tuple[float, ...],
    slides: float,
) -> None:
    grains = {grain: vgg(density, grain) for grain in ("fine", "vector", "kernel")}
    rows = [grains[grain].row_merge / 1e9 for grain in ("fine", "vector")]
    assert [grains["fine"].products / 1e9, *rows] == pytest.approx([products, fine, vector], abs=0.005)
    assert rows[1] / rows[0] == pytest.approx(ratio, abs=5e-4)
    assert [x.kernel_merge / 1e9 for x in grains.values()] == pytest.approx(merged, abs=0.005)
    assert 0.03 <= slides - rows[1] / rows[0] <= 0.06  # the slides' trend, 3 to 6 points above; their counts differ


@pytest.mark.parametrize(
    ("density", "products", "fine", "vector", "ratio"),
    [(0.401, 3.92, 2.85, 1.89, 0.662), (0.331, 3.23, 2.49, 1.56, 0.626), (0.275, 2.69, 2.17, 1.30, 0.599)],
)
def test_vgg_with_the_layers_of_han(density: float, products: float, fine: float, vector: float, ratio: float) -> None:
    one, rows = vgg(density, "fine", profile=True), vgg(density, "vector", profile=True)
    assert [x / 1e9 for x in (one.products, one.row_merge, rows.row_merge)] == pytest.approx(
        [products, fine, vector], abs=0.005
    )
    assert rows.row_merge / one.row_merge == pytest.approx(ratio, abs=5e-4)


def test_the_size_of_vgg() -> None:
    assert sum(x.weights for x, _, _ in VGG) == pytest.approx(14.71e6, rel=1e-3)
    assert sum(x.macs for x, _, _ in VGG) == pytest.approx(15.35e9, rel=1e-3)
    products = sum(x.macs * a * han for x, a, han in VGG)
    assert products / sum(x.macs for x, _, _ in VGG) == pytest.approx(0.208, abs=1e-3)
