"""Every registered structure, with and without options, passes the public suite."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from campfire.errors import UnknownName, UsageError
from campfire.structures import REGISTRY, named
from campfire.testing import SHAPES, check_structure

OPTIONS = ["window:mode=campfire", "window:mode=campfire,max_nonzero=4", "window:mode=mixed", "combined:share=0.5",
           "combined:literal=true", "combined:share=0", "2:4", "nm:n=1,m=8", "block:n=1", "block:n=3", "block:n=5",
           "two-tier:n=2,share=0.8", "two-tier:share=1", "tiles:rows=4,channels=2",
           "hrbp:rows=4,channels=2,guard=both", "hrbp:rows=3,channels=3,order=cluster,inputs=neighbours",
           "hrbp++:rows=4,channels=2,order=none", "hrbp++:rows=2,taps=2",
           "pattern:book=fixed4,balanced=true", "pattern:book=3+12+124", "pattern:book=auto:3,entries=6,centre=true",
           "pattern:size=5,entries=8"]  # fmt: skip
EVERY = [*sorted(REGISTRY), *OPTIONS]


@pytest.mark.parametrize("spec", EVERY)
def test_every_structure_conforms(spec: str) -> None:
    structure = named(spec)
    fits = [s for s in SHAPES if not structure.why_not(s)]
    assert check_structure(structure) == 8 * len(fits) > 0


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 3]))
sparsities = st.lists(st.floats(0, 0.99), min_size=1, max_size=4)


@pytest.mark.parametrize("spec", EVERY)
@given(shape=shapes, steps=sparsities, seed=st.integers(0, 999))
@settings(max_examples=15)
def test_every_structure_conforms_on_any_shape(spec: str, shape, steps, seed: int) -> None:
    structure = named(spec)
    if not structure.why_not(shape):
        check_structure(structure, [shape], [0.0, *steps], seed)


@given(spec=st.sampled_from(EVERY), shape=shapes, sparsity=st.floats(0, 0.99))
@settings(deadline=None)
def test_least_and_sparsity_of_agree_with_count(spec: str, shape, sparsity: float) -> None:
    structure = named(spec)
    if structure.why_not(shape):
        return
    count = structure.count(shape, sparsity)
    assert structure.count(shape, structure.sparsity_of(shape, count)) == count
    size = shape[0] * shape[1] * shape[2] * shape[3]
    least = structure.least(shape)
    if count < size:
        assert 0 < least <= 1 - count / size + 1e-12


def test_names_and_options_are_suggested() -> None:
    with pytest.raises(UnknownName, match="no structure is called 'windwo'; did you mean 'window'"):
        named("windwo")
    with pytest.raises(UnknownName, match="did you mean 'mode'"):
        named("window:mod=target")
    with pytest.raises(UsageError, match="needs a value"):
        named("window:mode")
    with pytest.raises(UsageError, match="is of type int; got 'four'"):
        named("block:n=four")


@pytest.mark.parametrize(
    "spec", ["window:max_nonzero=0", "combined:share=1.5", "4:2", "0:4", "block:n=0", "two-tier:share=2"]
)
def test_options_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="got"):
        named(spec)


@pytest.mark.parametrize("spec", EVERY)
def test_depthwise_is_refused_with_the_reason(spec: str) -> None:
    assert "depthwise" in " ".join(named(spec).why_not((32, 1, 3, 3), groups=32))


def test_grouped_layers() -> None:
    shape, groups = (32, 4, 3, 3), 8
    for spec in ("fine", "vector", "kernel", "filter", "ck", "window", "combined", "nm"):
        assert named(spec).why_not(shape, groups) == []
    assert named("block").why_not((32, 4, 1, 1), groups=8) == []
    assert "reach across groups" in named("block").why_not((24, 4, 1, 1), groups=4)[0]
    assert named("tiles").why_not((128, 16, 3, 3), groups=4) == []
    assert "groups of 16 outputs" in named("tiles").why_not((64, 16, 3, 3), groups=4)[0]


def test_reasons_against_a_shape() -> None:
    assert "not a multiple of m=4" in named("2:4").why_not((8, 6, 3, 3))[0]
    assert "fully connected" in named("two-tier").why_not((8, 8, 3, 3))[0]
