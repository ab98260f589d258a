"""What sparse layers are as modules: dense state dicts, copies, dtypes, refusals."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nn_cases import LAYOUTS, conv_pair, images, linear_pair
from torch import nn

from campfire.errors import DoesNotFit, UnknownName
from campfire.kernels import KERNELS
from campfire.kernels.choice import Choice
from campfire.mask import Mask
from campfire.nn import SparseConv2d, SparseLinear
from campfire.packed import Packed, pack


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("pair", [conv_pair, linear_pair])
def test_state_dict_is_the_dense_one(pair, layout: str) -> None:
    sparse, dense = pair(layout)
    ours, theirs = sparse.state_dict(), dense.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[k], theirs[k]) and not ours[k].requires_grad for k in theirs)
    assert dense.load_state_dict(ours)
    assert torch.equal(sparse.weight, dense.weight)
    assert torch.equal(sparse.mask.keep.view(dense.weight.shape), dense.weight != 0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("assign", [False, True])
def test_loads_a_dense_state_dict(layout: str, assign: bool) -> None:
    sparse, dense = conv_pair(layout)
    other = {"weight": dense.weight.detach() * 3, "bias": dense.bias.detach() + 1}
    value = sparse.value
    sparse.load_state_dict(other, assign=assign)
    assert torch.equal(sparse.weight, other["weight"])
    assert torch.equal(sparse.bias, other["bias"])
    assert (sparse.value is value) != assign
    assert sparse.value.requires_grad
    sparse(images()).sum().backward()


def test_assigning_takes_the_dtype() -> None:
    sparse, dense = conv_pair()
    sparse.load_state_dict({k: v.float() for k, v in dense.state_dict().items()}, assign=True)
    assert sparse.value.dtype == torch.float32
    assert sparse(images(dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("stray", [1.0, float("nan")])
def test_a_weight_where_none_lives_is_refused_and_nothing_loaded(stray: float) -> None:
    sparse, dense = conv_pair()
    before = copy.deepcopy(sparse.state_dict())
    bad = {"weight": dense.weight.detach() * 3, "bias": dense.bias.detach() + 1}
    bad["weight"][~sparse.mask.keep] = torch.tensor(stray, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="not zero where this layer has none"):
        sparse.load_state_dict(bad)
    assert all(torch.equal(v, before[k]) for k, v in sparse.state_dict().items())


def test_missing_unexpected_and_misshapen_keys() -> None:
    model = nn.Sequential(conv_pair()[0])
    with pytest.raises(RuntimeError, match=r'Missing key.*"0\.weight"'):
        model.load_state_dict({"0.bias": torch.zeros(16)})
    full = model.state_dict()
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"0\.other"'):
        model.load_state_dict({**full, "0.other": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"0\.weight: a weight of this layer is"):
        model.load_state_dict({**full, "0.weight": torch.zeros(16, 8)})
    result = model.load_state_dict({"0.bias": torch.zeros(16), "0.value": torch.zeros(1)}, strict=False)
    assert result.missing_keys == ["0.weight"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "save"])
def test_copies_stand_alone(layout: str, how: str) -> None:
    sparse, _ = conv_pair(layout)
    if how == "deepcopy":
        other = copy.deepcopy(sparse)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(sparse))
    else:
        torch.save(sparse, file := io.BytesIO())
        file.seek(0)
        other = torch.load(file, weights_only=False)
    x = images()
    expected = sparse(x)
    assert torch.equal(other(x), expected)
    with torch.no_grad():
        other.value.zero_()
    assert torch.equal(sparse(x), expected)
    del sparse  # its kernels go with it
    assert other(x).shape == expected.shape


def test_prepared_kernels_are_not_pickled() -> None:
    sparse, _ = conv_pair()
    before = len(pickle.dumps(sparse))
    sparse(images())
    assert len(pickle.dumps(sparse)) == before


def test_dtype_and_device_move() -> None:
    sparse, dense = conv_pair("tap")
    x = images(dtype=torch.float32)
    sparse.to(torch.float32)
    assert sparse.weight.dtype == torch.float32
    torch.testing.assert_close(sparse(x), dense.float()(x))
    assert sparse.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    assert {b.dtype for b in sparse.index.values()} == {torch.int32, torch.uint8, torch.bool}
    assert copy.deepcopy(sparse).to("meta").value.is_meta
    assert not sparse.eval().training
    assert sparse.train().training


def test_what_is_printed() -> None:
    text = repr(conv_pair("unit", stride=2)[0])
    assert "SparseConv2d(8, 16, kernel_size=(3, 3), stride=2, padding=1, density=0." in text
    assert "layout=unit" in text
    assert "bias=False" in repr(SparseLinear(pack(torch.eye(4), Mask(torch.eye(4).bool()[:, :, None, None]))))


def test_kernels_by_name() -> None:
    packed = conv_pair()[0].packed
    assert "kernel=reference" in repr(SparseConv2d(packed, kernel="reference"))
    with pytest.raises(UnknownName, match="reference"):
        SparseConv2d(packed, kernel="referense")


def test_invalid_parts_are_refused() -> None:
    packed = conv_pair()[0].packed
    broken = Packed("csr", packed.shape, {**packed.parts, "column": packed.parts["column"] + 70})
    with pytest.raises(DoesNotFit, match="column"):
        SparseConv2d(broken)
    with pytest.raises(DoesNotFit, match="bias"):
        SparseConv2d(packed, torch.zeros(3))
    with pytest.raises(DoesNotFit, match="linear"):
        SparseLinear(packed)
    with pytest.raises(DoesNotFit, match="no layout"):
        SparseConv2d(Packed("scr", packed.shape, packed.parts))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.data())
def test_any_mask_round_trips(outputs: int, inputs: int, size: int, data: st.DataObject) -> None:
    shape = (outputs, inputs, size, size)
    bits = data.draw(st.lists(st.booleans(), min_size=outputs * inputs * size**2, max_size=outputs * inputs * size**2))
    dense, mask = nn.Conv2d(inputs, outputs, size), Mask(torch.tensor(bits).view(shape))
    sparse = SparseConv2d.of(dense, mask)
    assert torch.equal(sparse.weight, dense.weight * mask.keep)
    assert torch.equal(sparse.mask.keep, mask.keep)
    assert sparse.density == mask.keep.float().mean()
    assert sparse.dense()(torch.ones(1, inputs, 4, 4)).shape == sparse(torch.ones(1, inputs, 4, 4)).shape


def test_an_assigned_choice_goes_along() -> None:
    sparse, _ = conv_pair("unit")
    choice = Choice("compact", "reference", "compact") if not _why_not_compact(sparse) else Choice(format="chwn")
    sparse.assign(choice)
    assert f"kernel={choice}" in repr(sparse)
    for twin in (copy.deepcopy(sparse), pickle.loads(pickle.dumps(sparse)), sparse.to("cpu")):
        assert twin.choice() == choice
    assert sparse.choice(torch.bfloat16) != choice, "the other dtypes keep theirs"
    assert sparse.float().choice() != choice
    assert sparse.double().choice() == choice
    sparse.unassign()
    assert "kernel=reference" in repr(sparse)


def _why_not_compact(sparse: SparseConv2d) -> list[str]:
    return KERNELS["compact"].why_not(sparse.packed, sparse.conv, torch.float64, torch.device("cpu"))


def test_a_choice_that_cannot_serve_is_refused() -> None:
    sparse, _ = conv_pair("unit")
    with pytest.raises(DoesNotFit, match="float32"):
        sparse.assign(Choice.of("blocks"))
    with pytest.raises(UnknownName, match="blok"):
        sparse.assign(Choice("blok"))
    assert "kernel=reference" in repr(sparse)
