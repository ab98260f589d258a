"""Values into a dense weight and back, natively and by torch, bit for bit."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from campfire.kernels.places import Places

SHAPES = [(1, 1, 1, 1), (3, 5, 1, 1), (4, 3, 3, 2), (33, 17, 3, 3), (40, 30, 3, 3)]  # the last has more than one chunk


@given(
    st.sampled_from(SHAPES),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    st.booleans(),
    st.sampled_from(["0", "1"]),
    st.integers(0, 99),
)
def test_there_and_back(shape: tuple[int, ...], dtype: torch.dtype, rising: bool, native: str, seed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPFIRE_NATIVE", native)
        torch.manual_seed(seed)
        weights = torch.Size(shape).numel()
        positions = torch.randperm(weights)[: int(torch.randint(weights + 1, ()))]
        positions = positions.sort()[0] if rising else positions
        value = torch.randn(positions.numel(), 1).to(dtype)
        expected = torch.zeros(weights, dtype=dtype)
        expected[positions] = value.flatten()
        places = Places(positions, shape)
        dense = places.put(value)
        assert torch.equal(dense, expected.view(shape))
        assert dense.is_contiguous(memory_format=torch.channels_last)
        other = torch.randn(shape).to(dtype)
        for lying in (other, other.contiguous(memory_format=torch.channels_last)):
            assert torch.equal(places.take(lying), other.flatten()[positions])
            for other_dtype in (torch.float32, torch.bfloat16, torch.float16):
                assert torch.equal(places.take(lying, other_dtype), other.flatten()[positions].to(other_dtype))
                assert torch.equal(places.put(value, other_dtype), expected.view(shape).to(other_dtype))


@pytest.mark.parametrize("native", ["0", "1"])
def test_every_float_is_rounded_as_torch_does(monkeypatch: pytest.MonkeyPatch, native: str) -> None:
    monkeypatch.setenv("CAMPFIRE_NATIVE", native)
    bits = torch.randint(-(2**31), 2**31, (1 << 16,), generator=torch.Generator().manual_seed(0)).int()
    odd = torch.tensor([float("inf"), -float("inf"), float("nan"), -0.0, 3.4e38, 1e-45])
    value = torch.cat([bits.view(torch.float32), odd])
    places = Places(torch.arange(len(value)), (len(value), 1, 1, 1))
    dense = places.put(value, torch.bfloat16).flatten()
    expected = value.to(torch.bfloat16)
    assert torch.equal(dense.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert torch.equal(dense.isnan(), value.isnan())


def test_threads_make_no_difference() -> None:
    positions = torch.randperm(64 * 64 * 9, generator=torch.Generator().manual_seed(0))[:35000]
    places, value, found = Places(positions, (64, 64, 3, 3)), torch.randn(35000), []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append((places.put(value), places.take(torch.arange(64 * 64 * 9.0).view(64, 64, 3, 3))))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
