"""What all layouts share: refusals, gathering and scattering, and the public suite."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from campfire.errors import CheckpointError, DoesNotFit
from campfire.mask import Mask
from campfire.packed import LAYOUTS, Packed, pack
from campfire.testing import check_layout, masks

SHAPE = (16, 8, 3, 3)
EVERY = sorted(LAYOUTS)


def kernels(shape=SHAPE, sparsity: float = 0.7) -> Mask:
    return dict(masks(shape, sparsity))["kernels"]


def test_the_layouts() -> None:
    assert {"csr", "unit", "grouped", "tap", "shrunk"} <= set(EVERY)


@pytest.mark.parametrize("layout", EVERY)
def test_every_layout_conforms(layout: str) -> None:
    assert check_layout(layout) > 30


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2, 3]), st.sampled_from([1, 3]))


@pytest.mark.parametrize("layout", EVERY)
@given(shape=sizes, sparsity=st.floats(0, 1), kind=st.integers(0, 99), seed=st.integers(0, 999))
@settings(max_examples=25)
def test_what_a_layout_holds_comes_back(layout: str, shape, sparsity: float, kind: int, seed: int) -> None:
    drawn = list(masks(shape, sparsity, seed))
    mask = drawn[kind % len(drawn)][1]
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if reasons := LAYOUTS[layout].why_not(mask):
        with pytest.raises(DoesNotFit) as caught:
            pack(weight, mask, layout)
        assert caught.value.reasons == reasons
    else:
        assert torch.equal(pack(weight, mask, layout).dense(), weight * mask.keep)


@pytest.mark.parametrize("layout", EVERY)
def test_gradcheck(layout: str) -> None:
    shape = (4, 2, 2, 1)
    mask = dict(masks(shape, 0.5))["outputs and inputs"]
    packed, held = pack(torch.randn(shape).double(), mask, layout), LAYOUTS[layout]
    value, dense = packed.parts["value"].requires_grad_(), torch.randn(shape).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: held.scatter(packed, v), value)
    assert torch.autograd.gradcheck(lambda d: held.gather(packed, d), dense)


def test_packing_is_detached_from_the_weight() -> None:
    weight = torch.nn.Parameter(torch.randn(SHAPE))
    for layout in ("csr", "unit", "grouped", "tap"):
        assert not pack(weight, kernels(), layout).parts["value"].requires_grad


def test_momentum_of_a_linear_layer_is_gathered() -> None:
    mask = Mask((torch.arange(64) % 16 < 8).view(8, 8, 1, 1))
    packed = pack(torch.randn(8, 8), mask, "unit", tile=(1, 8, 1, 1))
    momentum = torch.arange(64.0).view(8, 8)
    assert LAYOUTS["unit"].gather(packed, momentum).flatten().tolist() == momentum[::2].flatten().tolist()


def test_a_transposed_linear_weight_is_not_the_weight() -> None:
    packed = pack(torch.randn(4, 8), Mask(torch.ones(4, 8, 1, 1, dtype=torch.bool)))
    with pytest.raises(DoesNotFit, match=r"\(8, 4\) does not fit the weight"):
        LAYOUTS["csr"].gather(packed, torch.randn(8, 4))


@pytest.mark.parametrize("layout", EVERY)
def test_a_mask_of_another_shape_or_type_is_refused(layout: str) -> None:
    keep = torch.ones(16, 8, 1, 1, dtype=torch.bool)
    with pytest.raises(DoesNotFit, match=r"a mask is bool \(16, 8, 3, 3\)"):
        pack(torch.randn(SHAPE), Mask(keep), layout)
    with pytest.raises(DoesNotFit, match=r"got torch.float32"):
        pack(torch.randn(16, 8), Mask(keep.float()), layout)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(DoesNotFit, match="its options are none; got tile"):
        pack(torch.randn(SHAPE), kernels(), "csr", tile=(1, 1, 3, 3))
    with pytest.raises(DoesNotFit, match="its options are order, tile; got tiles"):
        pack(torch.randn(SHAPE), kernels(), "grouped", tiles=(1, 1, 3, 3))


@pytest.mark.parametrize("shape", [(4, 4, 3), (4, 4, 0, 3), (4, -4, 3, 3), (2**16, 2**16, 1, 1), (4.0, 4, 3, 3)])
def test_hostile_shapes_are_refused(shape) -> None:
    for layout in EVERY:
        parts = pack(torch.zeros(SHAPE), Mask(torch.zeros(SHAPE, dtype=torch.bool)), layout).parts
        with pytest.raises(CheckpointError, match=r"a weight is \[K, C, R, S\]"):
            Packed(layout, shape, parts).dense()


def test_sparse_tensors_and_parts_on_two_devices_are_refused() -> None:
    packed = pack(torch.randn(SHAPE), kernels(), "tap")
    for part, says in (
        (packed.parts["kernel"].to_sparse(), "kernel is int32"),
        (packed.parts["kernel"].to("meta"), "lie on one device; got cpu, meta"),
    ):
        assert says in LAYOUTS["tap"].why_invalid(Packed("tap", SHAPE, {**packed.parts, "kernel": part}))[0]
    value = packed.parts["value"].to_sparse()
    assert "value is" in LAYOUTS["tap"].why_invalid(Packed("tap", SHAPE, {**packed.parts, "value": value}))[0]
