"""Exact numbers of ClickTrain: methods.md U-6 and U-7."""

import itertools
import math

import pytest
import torch

from campfire.structures import books
from campfire.structures.pattern import Pattern

Layers = list[tuple[int, int, int]]  # K, C, R of each convolution, the first one dense


def basic_resnet() -> Layers:
    layers, inputs = [(64, 3, 3)], 64
    for width, depth in zip((64, 128, 256, 512), (3, 4, 5, 3), strict=True):
        for _ in range(depth):
            layers += [(width, inputs, 3), (width, width, 3)]
            inputs = width
    return layers


def bottlenecks(stem: int) -> Layers:
    layers, inputs = [(64, 3, stem)], 64
    for width, depth in zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True):
        for _ in range(depth):
            layers += [(width, inputs, 1), (width, width, 3), (4 * width, width, 1)]
            inputs = 4 * width
    return layers


def vgg(*widths: int) -> Layers:
    return [(k, c, 3) for c, k in itertools.pairwise((3, *widths))]


def blocks(*shares: tuple[int, int], convs: int) -> list[int]:
    """(blocks, share of dead kernels in percent), for every convolution of these blocks."""
    return [share for number, share in shares for _ in range(number * convs)]


RESNET32, RESNET50, IMAGENET = basic_resnet(), bottlenecks(3), bottlenecks(7)
VGG11 = vgg(64, 128, 256, 256, 512, 512, 512, 512)
VGG13 = vgg(64, 64, 128, 128, 256, 256, 512, 512, 512, 512)
VGG16 = vgg(64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)

U6 = [  # the network, percent of dead kernels in each layer, total, kept, their ratio
    (RESNET32, blocks((3, 55), (4, 65), (1, 65), (7, 75), convs=2), 19_908_288, 2_321_680, 8.5749),
    (RESNET32, blocks((3, 65), (4, 75), (1, 75), (7, 85), convs=2), 19_908_288, 1_436_924, 13.8548),
    (RESNET50, blocks((3, 55), (3, 65), (1, 75), (1, 75), (2, 80), (6, 85), convs=3), 20_678_336, 2_475_879, 8.3519),
    (RESNET50, blocks((2, 65), (1, 75), (2, 75), (2, 80), (1, 80), (2, 85), (6, 90), convs=3), 20_678_336, 1_707_058, 12.1134),
    (IMAGENET, blocks((6, 25), (1, 35), (2, 35), (4, 45), (3, 55), convs=3), 20_686_016, 7_334_455, 2.8204),
    (VGG11, [35, 45, 45, 55, 55, 65, 75], 9_223_232, 1_581_720, 5.8311),
    (VGG11, [45, 55, 55, 65, 65, 75, 85], 9_223_232, 1_172_124, 7.8688),
    (VGG11, [40, 55, 60, 65, 70, 75, 85], 9_223_232, 1_108_228, 8.3225),
    (VGG11, [45, 55, 55, 65, 65, 85, 85], 9_223_232, 1_067_264, 8.6419),
    (VGG11, [45, 55, 65, 75, 75, 80, 88], 9_223_232, 904_736, 10.1944),
    (VGG11, [35, 45, 65, 75, 80, 80, 85], 9_223_232, 900_144, 10.2464),
    (VGG11, [45, 65, 66, 75, 78, 85, 88], 9_223_232, 805_120, 11.4557),
    (VGG13, [16, 26, 35, 35, 36, 45, 46, 46, 46], 9_407_936, 2_328_228, 4.0408),
    (VGG13, [15, 30, 35, 35, 40, 45, 45, 50, 55], 9_407_936, 2_190_768, 4.2944),
    (VGG13, [25, 45, 55, 55, 55, 65, 65, 65, 65], 9_407_936, 1_528_856, 6.1536),
    (VGG13, [35, 55, 65, 65, 65, 75, 75, 75, 75], 9_407_936, 1_111_068, 8.4675),
    (VGG13, [40, 50, 55, 60, 65, 70, 75, 75, 85], 9_407_936, 1_046_348, 8.9912),
    (VGG16, [35, 45, 45, 45, 45, 45, 45, 55, 55, 65, 75, 75], 14_718_912, 2_558_684, 5.7525),
    (VGG16, [35, 45, 55, 55, 55, 65, 65, 65, 75, 80, 85, 85], 14_718_912, 1_673_948, 8.7929),
]  # fmt: skip


@pytest.mark.parametrize(("layers", "percent", "total", "kept", "ratio"), U6)
def test_u6_compression(layers: Layers, percent: list[int], total: int, kept: int, ratio: float) -> None:
    structure, shapes = Pattern(), [(k, c, r, r) for k, c, r in layers]
    norms = (
        2 * sum(k for k, *_ in layers) if layers in (VGG11, VGG13, VGG16) else 0
    )  # of VGG, they are called feature.*
    pruned = zip(shapes[1:], percent, strict=True)
    living = [structure.count(shape, structure.with_dead(shape, p / 100)) for shape, p in pruned]
    assert sum(map(math.prod, shapes)) + norms == total
    assert sum(living) + math.prod(shapes[0]) + norms == kept
    assert round(total / kept, 4) == ratio


LIBRARY = {  # of methods.md 3.2: id, rows, number
    "P1": ("000/011/011", 3), "P2": ("000/110/110", 12), "P3": ("011/011/000", 65), "P4": ("110/110/000", 120),
    "P5": ("000/001/111", 1), "P6": ("000/111/010", 14), "P7": ("010/011/010", 44), "P8": ("010/110/010", 53),
    "P9": ("111/010/000", 125), "P10": ("000/100/111", 6), "P11": ("111/100/000", 126), "P12": ("000/101/011", 7),
}  # fmt: skip


def test_u7_numbers_of_patterns() -> None:
    assert tuple(n for _, n in LIBRARY.values()) == books.FIXED
    for drawing, number in LIBRARY.values():
        assert books.rows(books.pattern(number)) == drawing
    assert books.rows(books.pattern(124)) == "111/001/000"
    zeros = list(itertools.combinations(range(9), 5))
    assert len(zeros) == 126
    for number, dead in enumerate(zeros, 1):
        row = [tap not in dead for tap in range(9)]
        assert (books.pattern(number), books.number(row)) == (row, number)
    middles = [books.pattern(n)[4] for n in books.FIXED]
    assert middles == [True] * 4 + [False] + [True] * 4 + [False] * 3
    assert all(sum(books.pattern(n)) == 4 for n in books.FIXED)


def test_u7_importance_and_the_best_pattern() -> None:
    kernel = torch.arange(1.0, 10).square().view(1, 9)  # (w g)^2 with g = 1
    by_pattern = [int(kernel[0, books.pattern(n)].sum()) for n in books.FIXED[:4]]
    assert (int(kernel.sum()), by_pattern) == (285, [206, 154, 74, 46])
    fixed = torch.tensor([books.pattern(n) for n in books.FIXED[:4]])
    assert books.rows(books.best_patterns(kernel, fixed)[0].tolist()) == "000/011/011"
    (best,) = books.winners(kernel, 4, 8).tolist()
    assert (books.number(best), int(kernel[0, best].sum())) == (1, 230)


def test_u7_kernels_of_an_fkw_layer() -> None:
    structure, shape = Pattern("fixed4"), (64, 64, 3, 3)
    weights = structure.count(shape, structure.with_dead(shape, 0.55))
    assert (weights, weights // 4) == (7372, 1843)
