import pytest
import torch
from torch import Tensor

from campfire.errors import CheckpointError, DoesNotFit
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack
from campfire.testing import masks

SHAPE = (32, 8, 3, 3)


def example() -> tuple[Tensor, Mask, Packed]:
    mask = dict(masks(SHAPE, 0.5))["regrouped blocks"]
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return weight, mask, pack(weight, mask, "grouped")


def test_it_is_unit_over_permuted_rows() -> None:
    weight, mask, packed = example()
    order = mask.plan["order"]
    rows = pack(weight[order], Mask(mask.keep[order]), "unit")
    assert rows.parts["tile"].tolist() == [16, 1, 3, 3]
    assert packed.parts["order"].tolist() == order.tolist()
    for part in ("tile", "unit", "value"):
        assert torch.equal(packed.parts[part], rows.parts[part])


def test_back_reads_an_input_block_in_one_run() -> None:
    weight, _, packed = example()
    unit, back = packed.parts["unit"].long(), packed.parts["back"].long()
    channel = unit[back] % SHAPE[1]
    assert (channel.diff() >= 0).all()
    assert sorted(back.tolist()) == list(range(len(unit)))
    assert torch.equal(packed.dense(), weight * (packed.dense() != 0))


def test_the_order_comes_from_the_plan_else_from_the_option_else_as_it_is() -> None:
    weight, mask, packed = example()
    bare = Mask(mask.keep)
    asked = pack(weight, bare, "grouped", order=mask.plan["order"].tolist())
    assert all(torch.equal(asked.parts[k], v) for k, v in packed.parts.items())
    other = torch.arange(32).flip(0)
    assert pack(weight, mask, "grouped", order=other).parts["order"].tolist() == mask.plan["order"].tolist()
    blocks = dict(masks(SHAPE, 0.7))["blocks"]
    assert pack(weight, blocks, "grouped").parts["order"].tolist() == list(range(32))


def test_scattered_rows_fit_only_in_their_order() -> None:
    weight, mask, _ = example()
    assert LAYOUTS["unit"].why_not(mask, tile=(16, 1, 3, 3))
    with pytest.raises(DoesNotFit, match="half alive"):
        pack(weight, Mask(mask.keep), "grouped", tile=(16, 1, 3, 3))
    assert pack(weight, mask, "grouped", tile=(8, 1, 3, 3)).parts["tile"].tolist() == [8, 1, 3, 3]


@pytest.mark.parametrize("order", [[0] * 32, list(range(31)), list(range(1, 33)), list(range(-1, 31))])
def test_an_order_that_is_no_permutation_is_refused(order: list[int]) -> None:
    weight, mask, _ = example()
    with pytest.raises(DoesNotFit, match="order is not a permutation of 32"):
        pack(weight, Mask(mask.keep, {"order": torch.tensor(order)}), "grouped")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: {**p, "order": p["order"].clamp(min=1)}, "order is not a permutation of 32"),
        (lambda p: {**p, "order": p["order"] + 1}, "order is not a permutation of 32"),
        (lambda p: {**p, "order": p["order"][:-1]}, "order is not a permutation of 32"),
        (lambda p: {**p, "order": p["order"].long()}, "order is int32"),
        (lambda p: {**p, "unit": p["unit"].flip(0)}, "unit do not rise"),
        (lambda p: {**p, "unit": p["unit"] + 144}, "unit lies outside"),
        (lambda p: {**p, "tile": p["tile"] * 4}, "does not divide"),
        (lambda p: {**p, "back": p["back"].flip(0)}, "back does not number"),
        (lambda p: {**p, "back": p["back"][:-1]}, "back does not number"),
        (lambda p: {**p, "back": p["back"] - 1}, "back does not number"),
        (lambda p: {**p, "value": p["value"][:, 1:]}, "want a value of shape"),
        (lambda p: {k: v for k, v in p.items() if k != "back"}, "grouped has the parts"),
    ],
)
def test_hostile_parts_are_refused(change, says: str) -> None:
    _, _, packed = example()
    with pytest.raises(CheckpointError, match=says):
        Packed("grouped", SHAPE, change(packed.parts)).dense()
