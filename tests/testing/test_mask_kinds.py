import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from campfire.testing import masks

sizes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.integers(1, 3))


@given(shape=sizes, sparsity=st.floats(0, 1), seed=st.integers(0, 99))
def test_masks_fit_every_shape_and_are_sparse_enough(shape, sparsity: float, seed: int) -> None:
    for (name, mask), (_, again) in zip(masks(shape, sparsity, seed), masks(shape, sparsity, seed), strict=True):
        assert mask.keep.dtype == torch.bool
        assert tuple(mask.keep.shape) == shape
        assert mask.sparsity >= sparsity - 1e-6, name
        assert mask.checksum() == again.checksum()


@pytest.mark.parametrize(("sparsity", "kept"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_ends_are_full_and_empty(sparsity: float, kept: float) -> None:
    for name, mask in masks((32, 16, 3, 3), sparsity):
        assert 1 - mask.sparsity == kept, name


def test_in_the_middle_they_are_neither() -> None:
    for name, mask in masks((32, 16, 3, 3), 0.7):
        assert 0.7 <= mask.sparsity < 0.85, name
