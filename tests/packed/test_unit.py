import pytest
import torch
from torch import Tensor

from campfire.errors import CheckpointError, DoesNotFit
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack
from campfire.structures import named
from campfire.testing import masks

SHAPE = (32, 8, 3, 3)


def example() -> tuple[Tensor, Mask, Packed]:
    mask = dict(masks(SHAPE, 0.7))["vectors"]
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return weight, mask, pack(weight, mask, "unit")


def test_inside_a_tile_outputs_run_fastest_then_inputs_then_taps() -> None:
    weight = torch.arange(32.0).view(4, 2, 2, 2)  # 8 k + 4 c + 2 r + s
    packed = pack(weight, Mask(weight >= 0), "unit", tile=(2, 2, 1, 2))
    assert packed.parts["unit"].tolist() == [0, 1, 2, 3]
    assert packed.parts["value"][1].tolist() == [2, 10, 6, 14, 3, 11, 7, 15]  # outputs 0-1, second row of taps


@pytest.mark.parametrize(
    ("kind", "shape", "tile"),
    [
        ("kernels", SHAPE, [1, 1, 3, 3]),
        ("vectors", SHAPE, [16, 1, 1, 1]),
        ("blocks", SHAPE, [8, 4, 3, 3]),
        ("filters", (32, 6, 5, 5), [1, 2, 5, 5]),
        ("blocks", (24, 6, 1, 1), [8, 2, 1, 1]),
        ("blocks", (9, 7, 5, 5), [1, 1, 5, 5]),
    ],
)
def test_the_tile_is_detected(kind: str, shape, tile: list[int]) -> None:
    packed = pack(torch.randn(shape), dict(masks(shape, 0.7))[kind], "unit")
    assert packed.parts["tile"].tolist() == tile


def test_full_and_empty_masks_have_the_largest_tile() -> None:
    for keep in (torch.ones(64, 8, 3, 3, dtype=torch.bool), torch.zeros(64, 8, 3, 3, dtype=torch.bool)):
        packed = pack(torch.randn(keep.shape), Mask(keep), "unit")
        assert packed.parts["tile"].tolist() == [32, 4, 3, 3]
        assert packed.parts["value"].shape == (int(keep[::32, ::4, 0, 0].sum()), 1152)


def test_a_smaller_tile_can_be_asked_for() -> None:
    weight, mask, _ = example()
    packed = pack(weight, mask, "unit", tile=[8, 1, 1, 1])
    assert packed.parts["value"].shape[1] == 8
    assert torch.equal(packed.dense(), weight * mask.keep)
    assert len(pack(weight, mask, "unit", tile=(1, 1, 1, 1)).parts["unit"]) == int(mask.keep.sum())


def test_masks_that_do_not_fit() -> None:
    weight, mask, _ = example()
    single = dict(masks(SHAPE, 0.7))["single weights"]
    with pytest.raises(DoesNotFit, match="no tile of more than one weight is uniform"):
        pack(weight, single, "unit")
    with pytest.raises(DoesNotFit, match="tiles of 32x1x1x1 are half alive"):
        pack(weight, mask, "unit", tile=(32, 1, 1, 1))
    with pytest.raises(DoesNotFit, match="tile of 5x1x3x3 does not divide 32x8x3x3"):
        pack(weight, mask, "unit", tile=(5, 1, 3, 3))
    with pytest.raises(DoesNotFit, match="does not divide"):
        pack(weight, mask, "unit", tile=(16, 1))


@pytest.mark.parametrize("structure", ["ck", "filter", "kernel"])
def test_structures_of_whole_units_fit(structure: str) -> None:
    score = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
    made = named(structure)
    count = made.count(SHAPE, 0.7)
    mask = Mask(made.project(score, count, {}, torch.ones(SHAPE, dtype=torch.bool)))
    assert LAYOUTS["unit"].why_not(mask) == []


def put(name: str, at: int, to: int):
    return lambda parts: {**parts, name: parts[name].index_fill(0, torch.tensor([at]), to)}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("unit", 0, -1), r"unit lies outside \[0, 144\)"),
        (put("unit", -1, 144), r"unit lies outside \[0, 144\)"),
        (lambda p: {**p, "unit": p["unit"].flip(0)}, "unit do not rise"),
        (lambda p: {**p, "unit": p["unit"][[0, 0, *range(2, len(p["unit"]))]]}, "unit do not rise"),
        (put("tile", 0, 0), "tile of 0x1x1x1 does not divide"),
        (put("tile", 0, -16), "does not divide"),
        (put("tile", 1, 3), "does not divide"),
        (put("tile", 0, 8), "want a value of shape"),
        (lambda p: {**p, "tile": p["tile"][:3]}, "does not divide"),
        (lambda p: {**p, "tile": p["tile"].repeat(99)}, "does not divide"),
        (lambda p: {**p, "tile": p["tile"].long()}, "tile is int32 with 1 axes; got int64"),
        (lambda p: {**p, "unit": p["unit"].view(1, -1)}, "unit is int32 with 1 axes"),
        (lambda p: {**p, "value": p["value"][:-1]}, "want a value of shape"),
        (lambda p: {**p, "value": p["value"].flatten()}, "want a value of shape"),
        (lambda p: {**p, "value": p["value"].int()}, "value is floating point; got int32"),
        (lambda p: {k: p[k] for k in ("tile", "value")}, "unit has the parts tile, unit, value; got tile, value"),
        (lambda p: {}, "got none"),
    ],
)
def test_hostile_parts_are_refused(change, says: str) -> None:
    _, _, packed = example()
    with pytest.raises(CheckpointError, match=says):
        Packed("unit", SHAPE, change(packed.parts)).dense()
