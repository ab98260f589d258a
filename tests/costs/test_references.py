"""References counted on masks and activations, against counting one by one, and against what densities promise."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from campfire.costs import References, expected_references, references
from campfire.costs.references import Geometry, Seen

CASES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "3x3": ({"kernel_size": 3, "padding": 1}, (2, 4, 5, 6)),
    "stride": ({"kernel_size": 3, "stride": 2, "padding": 1}, (1, 4, 7, 6)),
    "dilation": ({"kernel_size": (2, 3), "dilation": (2, 1), "stride": (1, 2)}, (1, 4, 6, 7)),
    "groups": ({"kernel_size": 3, "groups": 2}, (2, 4, 5, 5)),
    "1x1": ({"kernel_size": 1}, (2, 4, 3, 3)),
    "5x5": ({"kernel_size": 5, "padding": 2}, (1, 4, 5, 4)),
    "1x3": ({"kernel_size": (1, 3)}, (1, 4, 4, 5)),
    "same": ({"kernel_size": (2, 3), "padding": "same"}, (1, 4, 4, 5)),
    "reflect": ({"kernel_size": 3, "padding": 1, "padding_mode": "reflect"}, (1, 4, 4, 4)),
}


def draw(shape: tuple[int, ...], density: float, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density


def one_by_one(keep: Tensor, layer: nn.Conv2d, active: Tensor) -> References:
    """The outputs that change where single taps, single rows and whole kernels stand alone."""
    k, c, rows, columns = keep.shape
    counts = [0, 0, 0]
    taps = list(itertools.product(range(rows), range(columns)))
    parts = [[[t] for t in taps], [[t for t in taps if t[0] == r] for r in range(rows)], [taps]]
    for i, groups in enumerate(parts):
        for part, channel in itertools.product(groups, range(c)):
            weight = torch.zeros(k, c, rows, columns)
            for r, s in part:
                weight[:, channel, r, s] = keep[:, channel, r, s].float()
            layer.weight.data = weight
            counts[i] += int(layer(active.float()).count_nonzero())
    return References(*counts)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("table", [references.TABLE, 0])
def test_equals_counting_one_by_one(case: str, table: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "TABLE", table)  # 0: by multiplying
    options, shape = CASES[case]
    layer = nn.Conv2d(4, 6, **options, bias=False)
    keep, active = draw(tuple(layer.weight.shape), 0.4, 1), draw(shape, 0.5, 2)
    found = Seen.of(active * torch.randn(shape), Geometry.of(layer)).references(keep)
    assert found == one_by_one(keep, layer, active)


def test_a_linear_layer_refers_once_a_product() -> None:
    keep, active = draw((5, 8), 0.5, 1), draw((3, 2, 8), 0.5, 2)
    products = int((active.float() @ keep.float().T).sum())
    found = Seen.of(active.float(), Geometry.of(nn.Linear(8, 5))).references(keep[:, :, None, None])
    assert found == References(products, products, products)


@pytest.mark.parametrize("grain", ["fine", "vector", "kernel"])
def test_random_masks_and_activations_keep_what_densities_promise(grain: str) -> None:
    axes = {"fine": (32, 16, 3, 3), "vector": (32, 16, 3, 1), "kernel": (32, 16, 1, 1)}[grain]
    keep = draw(axes, 0.3, 3).expand(32, 16, 3, 3)
    active = draw((2, 16, 34, 34), 0.45, 4)
    found = Seen.of(active.float(), Geometry(kernel=(3, 3))).references(keep)
    macs, weights = keep.numel() * 2 * 32 * 32, float(keep.float().mean())
    expected = expected_references(macs, (3, 3), weights, float(active.float().mean()), grain)
    for counted, promised in zip(found.counts, expected.counts, strict=True):
        assert counted == pytest.approx(promised, rel=0.02)


@pytest.mark.parametrize("chunk", [1, 2, 64])
def test_work_is_the_products_of_each_output_and_input(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "CHUNK", chunk)
    layer = nn.Conv2d(4, 6, 3, groups=2, stride=2, bias=False)
    keep, active = draw(tuple(layer.weight.shape), 0.4, 1), draw((2, 4, 8, 8), 0.5, 2)
    by_output, by_input = Seen.of(active.float(), Geometry.of(layer)).work(keep)
    layer.weight.data = keep.float()
    assert by_output.tolist() == layer(active.float()).sum((0, 2, 3)).tolist()
    for c in range(4):
        one = torch.zeros_like(active)
        one[:, c] = active[:, c]
        assert int(by_input[c]) == int(layer(one.float()).sum())
