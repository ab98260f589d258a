"""Codes of living weights: how far off, how many bits, and that masks and odd layers survive them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from campfire.errors import CampfireError, DoesNotFit, UnknownName, UsageError
from campfire.quantise import Values, named
from campfire.quantise.base import decode, encode

WAYS = ["int8", "codebook:2", "codebook:4", "codebook:8"]


def layer(seed: int, shape: tuple[int, ...] = (8, 4, 3, 3), sparsity: float = 0.6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keep = torch.rand(shape, generator=generator) >= sparsity
    return torch.randn(shape, generator=generator) * keep, keep


def written(values: Values, weight: Tensor, keep: Tensor) -> Tensor:
    return decode(values, encode(values, weight, keep), keep, tuple(weight.shape))


@pytest.mark.parametrize("way", WAYS)
@given(seed=st.integers(0, 50), sparsity=st.sampled_from([0.0, 0.5, 0.97, 1.0]))
def test_dead_weights_stay_zero_and_few_values_are_left(way: str, seed: int, sparsity: float) -> None:
    weight, keep = layer(seed, sparsity=sparsity)
    new = written(named(way), weight, keep)
    assert (new[~keep] == 0).all()
    if way != "int8":
        assert len(new[keep].unique()) <= 2 ** int(way[-1])
    lost = float((new - weight).norm())
    assert lost <= {"int8": 0.01, "2": 0.6, "4": 0.2, "8": 0.02}[way if way == "int8" else way[-1]] * weight.norm()


@given(seed=st.integers(0, 50))
def test_int8_is_off_by_half_a_step_of_its_output(seed: int) -> None:
    weight, keep = layer(seed)
    weight *= torch.logspace(-3, 3, 8)[:, None, None, None]  # outputs of very different sizes
    off = (written(named("int8"), weight, keep) - weight).abs().flatten(1).amax(1)
    assert (off <= weight.abs().flatten(1).amax(1) / 254 * (1 + 1e-5)).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("value", [0.1, -3.7e-5, 0.0, 1e30])
def test_a_layer_of_one_value_keeps_it(way: str, value: float) -> None:
    weight = torch.full((4, 2, 3, 3), value)
    keep = torch.ones_like(weight, dtype=torch.bool)
    torch.testing.assert_close(written(named(way), weight, keep), weight, rtol=1e-6, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_one_living_weight_none_and_an_empty_output(way: str) -> None:
    weight = torch.zeros(3, 5)
    weight[1, 2] = -0.25
    new = written(named(way), weight, weight != 0)
    torch.testing.assert_close(new, weight)
    assert written(named(way), weight, torch.zeros(3, 5, dtype=torch.bool)).count_nonzero() == 0


def test_denormals_never_make_a_scale_of_zero() -> None:
    codes = encode(named("int8"), torch.full((1, 4), 1e-44), torch.ones(1, 4, dtype=torch.bool))
    assert (codes.table > 0).all()
    assert codes.codes.count_nonzero() == 0


def test_bytes() -> None:
    weight, keep = layer(0, (16, 16, 3, 3), 0.75)
    living = int(keep.sum())
    assert encode(named("int8"), weight, keep).nbytes == living + 4 * 16
    assert encode(named("codebook:3"), weight, keep).nbytes == -(-3 * living // 8) + 4 * 8


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("way", ["int8", "codebook:4"])
def test_weights_that_are_not_finite_are_refused(way: str, bad: float) -> None:
    weight = torch.ones(2, 2)
    weight[0, 1] = bad
    with pytest.raises(CampfireError, match="1 of 4 are not finite"):
        encode(named(way), weight, torch.ones(2, 2, dtype=torch.bool))
    weight[0, 1] = 0  # a dead one may be anything
    encode(named(way), weight, weight != 0)


def test_names() -> None:
    assert str(named("codebook:5")) == str(named("codebook:bits=5")) == "codebook:bits=5"
    for wrong in ("codebook:1", "codebook:9"):
        with pytest.raises(UsageError, match="2 to 8 bits"):
            named(wrong)
    with pytest.raises(UnknownName, match="did you mean 'int8'"):
        named("int7")


def test_codes_of_another_mask() -> None:
    weight, keep = layer(0)
    with pytest.raises(DoesNotFit, match="of its weights live"):
        decode(named("int8"), encode(named("int8"), weight, keep), ~keep, tuple(weight.shape))
    with pytest.raises(DoesNotFit, match="of the weight's size"):
        encode(named("int8"), weight, keep.float())
