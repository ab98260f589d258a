import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from campfire.errors import CheckpointError, UnknownName
from campfire.mask import Mask
from campfire.packed import Packed, pack


def example() -> tuple[Tensor, Mask, Packed]:
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(6, 4, 3, 3, generator=generator) > 0.7
    keep[2] = False  # an empty row
    weight = torch.randn(keep.shape, generator=generator)
    return weight, Mask(keep), pack(weight, Mask(keep))


@given(st.integers(0, 2**31), st.floats(0, 1), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_round_trip_of_any_mask(seed: int, density: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(5, 3, 3, 2, generator=generator) < density
    weight = torch.randn(keep.shape, generator=generator).to(dtype)
    packed = pack(weight, Mask(keep))
    assert packed.dense().dtype == dtype
    assert torch.equal(packed.dense(), weight * keep)


def test_a_linear_weight_is_1x1_and_bytes_are_counted() -> None:
    weight = torch.randn(4, 8)
    packed = pack(weight, Mask((weight > 0)[:, :, None, None]))
    assert packed.shape == (4, 8, 1, 1)
    assert packed.nbytes == 4 * (5 + 2 * int((weight > 0).sum()))


def breaks(part: str, at: int, value: int):
    def change(parts: dict[str, Tensor]) -> None:
        parts[part] = parts[part].clone()
        parts[part][at] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (breaks("row", 0, 1), "row runs from 0"),
        (breaks("row", -1, 999), "row runs from 0"),
        (breaks("row", 2, 0), "row runs from 0"),
        (breaks("column", 0, -1), "outside"),
        (breaks("column", -1, 36), "outside"),
        (lambda p: p.update(column=p["column"].flip(0)), "do not rise"),
        (lambda p: p.update(column=p["column"].long()), "int32"),
        (lambda p: p.update(value=p["value"][:-1]), "want a value of shape"),
        (lambda p: p.pop("row"), "has the parts"),
        (lambda p: p.update(extra=p["row"]), "has the parts"),
    ],
)
def test_hostile_parts_are_refused(change, says: str) -> None:
    _, _, packed = example()
    parts = dict(packed.parts)
    change(parts)
    with pytest.raises(CheckpointError, match=says):
        Packed("csr", packed.shape, parts).dense()


def test_rows_that_wrap_around_int32_are_refused() -> None:
    """Differences of these rows are all positive in int32, and would ask for gigabytes."""
    top = 2**31 - 1
    row = torch.tensor([0, top, -top - 1, -1, 0], dtype=torch.int32)
    assert bool((row.diff() > 0).all())
    parts = {"row": row, "column": torch.zeros(0, dtype=torch.int32), "value": torch.zeros(0)}
    with pytest.raises(CheckpointError, match="never falls"):
        Packed("csr", (4, 4, 3, 3), parts).dense()


def test_unknown_layout() -> None:
    weight, mask, _ = example()
    with pytest.raises(UnknownName, match="did you mean 'csr'"):
        pack(weight, mask, "csc")
