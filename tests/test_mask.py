import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from campfire.errors import CheckpointError
from campfire.mask import Mask, pack_bits, unpack_bits


@given(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)), st.integers(0, 999))
def test_bits_round_trip(shape: tuple[int, ...], seed: int) -> None:
    keep = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    bits = pack_bits(keep)
    assert bits.numel() == -(-keep.numel() // 8)
    assert torch.equal(unpack_bits(bits, shape), keep)


def test_bits_ignore_the_memory_format() -> None:
    keep = torch.rand(4, 3, 3, 3) > 0.5
    assert torch.equal(pack_bits(keep.to(memory_format=torch.channels_last)), pack_bits(keep))


@pytest.mark.parametrize(
    "bits", [torch.zeros(1, dtype=torch.uint8), torch.zeros(3), torch.zeros(3, 1, dtype=torch.uint8)]
)
def test_bits_of_another_shape_are_refused(bits: torch.Tensor) -> None:
    with pytest.raises(CheckpointError, match="3 uint8 values"):
        unpack_bits(bits, (2, 3, 2, 2))


def test_checksums_tell_masks_and_plans_apart() -> None:
    keep = torch.ones(2, 2, 1, 1, dtype=torch.bool)
    other = keep.clone()
    other[0, 0] = False
    sums = [Mask(keep), Mask(other), Mask(keep.view(1, 4, 1, 1)), Mask(keep, {"goal": torch.tensor(0.5)})]
    assert len({m.checksum() for m in sums}) == 4
    assert Mask(keep.clone()).checksum() == Mask(keep).checksum()
