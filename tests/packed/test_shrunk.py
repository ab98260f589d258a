import pytest
import torch
from torch import Tensor

from campfire.errors import CheckpointError, DoesNotFit
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack
from campfire.testing import masks

SHAPE = (12, 8, 3, 3)


def example() -> tuple[Tensor, Mask, Packed]:
    mask = dict(masks(SHAPE, 0.7))["outputs and inputs"]
    weight = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return weight, mask, pack(weight, mask, "shrunk")


def test_what_is_left_is_the_smaller_dense_weight() -> None:
    weight, mask, packed = example()
    outputs, inputs = (mask.keep.flatten(2).any(2).any(axis).nonzero()[:, 0] for axis in (1, 0))
    assert packed.parts["output"].tolist() == outputs.tolist()
    assert packed.parts["input"].tolist() == inputs.tolist()
    assert 0 < len(outputs) < 12
    assert 0 < len(inputs) < 8
    assert torch.equal(packed.parts["value"], weight[outputs][:, inputs].flatten(1))


def test_an_empty_mask_has_neither_outputs_nor_inputs() -> None:
    packed = pack(torch.randn(SHAPE), Mask(torch.zeros(SHAPE, dtype=torch.bool)), "shrunk")
    assert [tuple(packed.parts[p].shape) for p in ("output", "input", "value")] == [(0,), (0,), (0, 0)]
    assert int(packed.dense().count_nonzero()) == 0


def test_a_hole_is_refused() -> None:
    weight, mask, _ = example()
    keep = mask.keep.clone()
    keep[tuple(keep.nonzero()[0])] = False
    with pytest.raises(DoesNotFit, match=r"1 of \d+ weights between living outputs and inputs are dead"):
        pack(weight, Mask(keep), "shrunk")


def none(parts: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {**parts, name: parts[name][:0], "value": parts["value"][:0]}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: {**p, "output": p["output"] - 12}, r"output lies outside \[0, 12\)"),
        (lambda p: {**p, "output": p["output"] + 12}, r"output lies outside \[0, 12\)"),
        (lambda p: {**p, "output": p["output"].flip(0)}, "output do not rise"),
        (lambda p: {**p, "input": p["input"] + 8}, r"input lies outside \[0, 8\)"),
        (lambda p: {**p, "input": p["input"] * 0}, "input do not rise"),
        (lambda p: {**p, "input": p["input"].long()}, "input is int32"),
        (lambda p: none(p, "output"), "outputs without inputs, or inputs without outputs"),
        (lambda p: none(p, "input"), "outputs without inputs, or inputs without outputs"),
        (lambda p: {**p, "output": p["output"][1:]}, "want a value of shape"),
        (lambda p: {**p, "input": p["input"][1:]}, "want a value of shape"),
        (lambda p: {**p, "value": p["value"].t().contiguous()}, "want a value of shape"),
        (lambda p: {k: p[k] for k in ("output", "value")}, "shrunk has the parts"),
    ],
)
def test_hostile_parts_are_refused(change, says: str) -> None:
    _, _, packed = example()
    with pytest.raises(CheckpointError, match=says):
        Packed("shrunk", SHAPE, change(packed.parts)).dense()


def test_it_holds_what_filters_leave() -> None:
    assert LAYOUTS["shrunk"].why_not(dict(masks(SHAPE, 0.7))["filters"]) == []
    assert LAYOUTS["shrunk"].why_not(dict(masks(SHAPE, 0.7))["kernels"])
