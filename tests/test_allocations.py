import math
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from campfire import Era, Pruner
from campfire.allocations import given as given_
from campfire.allocations import named, ramp
from campfire.errors import Clamped, UnknownName, UsageError

SHAPES = {"a": (16, 16, 3, 3), "b": (64, 64, 3, 3), "c": (256, 64, 1, 1), "d": (10, 256, 1, 1)}
SIZE = {n: math.prod(s) for n, s in SHAPES.items()}


def total(sparsity: dict[str, float]) -> float:
    return sum(sparsity[n] * SIZE[n] for n in SHAPES) / sum(SIZE.values())


@pytest.mark.filterwarnings("ignore::campfire.errors.Clamped")
@given(st.floats(0, 0.99))
def test_uniform_and_erk_meet_the_total(sparsity: float) -> None:
    for name in ("uniform", "erk"):
        shares = named(name)(SHAPES, sparsity, dict)
        assert total(shares) == pytest.approx(sparsity, abs=1e-9)
        assert all(0 <= s < 1 for s in shares.values())


def test_erk_is_proportional_to_its_formula_or_dense() -> None:
    shares = named("erk")(SHAPES, 0.9, dict)
    ratio = {n: (1 - shares[n]) / (sum(SHAPES[n]) / SIZE[n]) for n in SHAPES if shares[n] > 0}
    assert len(ratio) >= 2
    assert max(ratio.values()) == pytest.approx(min(ratio.values()))


def test_erk_says_what_it_clamped() -> None:
    shapes = {"small": (8, 8, 1, 1), "large": (256, 256, 3, 3)}
    with pytest.warns(Clamped, match="density above 1; they stay dense, and the others get less: small$"):
        shares = named("erk")(shapes, 0.5, dict)
    assert shares["small"] == 0
    assert 64 + (1 - shares["large"]) * 256 * 256 * 9 == pytest.approx(0.5 * (64 + 256 * 256 * 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named("erk")(shapes, 0.999, dict)
        named("erk")(shapes, 0.0, dict)


def test_global_is_one_ranking_over_all_layers() -> None:
    rng = np.random.default_rng(0)
    scores = {n: rng.random(SIZE[n]) * scale for n, scale in zip(SHAPES, (4, 1, 2, 1e-6), strict=True)}
    shares = named("global")(SHAPES, 0.6, lambda: scores)
    assert shares["a"] < shares["c"] < shares["b"]
    assert shares["d"] == 1 - 1 / SIZE["d"]  # all of it would go: one weight stays
    everything = np.sort(np.concatenate(list(scores.values())))
    cut = everything[int(0.6 * len(everything)) - 1]
    assert shares["b"] == (scores["b"] <= cut).mean()


def test_a_given_list_must_name_the_pruned_layers() -> None:
    wanted = dict.fromkeys(SHAPES, 0.5)
    assert given_(wanted)(SHAPES, 0.9, dict) == wanted
    with pytest.raises(UsageError, match="missing: d; not pruned: e"):
        given_({"a": 0.1, "b": 0.1, "c": 0.1, "e": 0.1})(SHAPES, 0.9, dict)
    with pytest.raises(UnknownName, match="did you mean 'erk'"):
        named("erc")


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.6, 0.83, 0.95])
def test_ramp_rises_with_depth_and_meets_the_total(sparsity: float) -> None:
    shapes = {f"layer{i}": (8 * (i + 1), 8, 3, 3) for i in range(6)}
    shares = ramp(shapes, sparsity)
    sizes = {n: math.prod(s) for n, s in shapes.items()}
    assert sum(shares[n] * sizes[n] for n in shapes) == pytest.approx(sparsity * sum(sizes.values()), abs=1e-6)
    assert list(shares.values()) == sorted(shares.values())
    assert all(0 <= x < 1 for x in shares.values())
    if sparsity == 0.83:
        assert (1 - shares["layer5"]) / (1 - shares["layer0"]) == pytest.approx(0.4)


def test_ramp_keeps_more_where_kernels_have_one_tap() -> None:
    shares = ramp({"a": (8, 8, 3, 3), "b": (8, 8, 1, 1)}, 0.8)
    assert (1 - shares["b"]) / (1 - shares["a"]) == pytest.approx(0.4 * 9 / 4)


@pytest.mark.parametrize("sparsity", [0.1, 0.3, 0.5, 0.62, 0.9])
@pytest.mark.parametrize("kind", ["zeros", "equal", "few"])
def test_global_shares_out_exactly_what_is_to_go_also_among_equal_scores(sparsity: float, kind: str) -> None:
    rng = np.random.default_rng(0)
    scores = {n: rng.random(SIZE[n]) for n in SHAPES}
    if kind == "few":
        scores = {n: np.floor(3 * x) for n, x in scores.items()}
    elif kind == "zeros":
        scores = {n: np.where(x < 0.5, 0, x) for n, x in scores.items()}
    else:
        scores = {n: np.ones_like(x) for n, x in scores.items()}
    shares = named("global")(SHAPES, sparsity, lambda: scores)
    clamped = sum(share == 1 - 1 / SIZE[n] for n, share in shares.items())
    gone = round(total(shares) * sum(SIZE.values()))
    assert gone == math.floor(sparsity * sum(SIZE.values()) + 1e-9) - clamped


def test_global_takes_equal_scores_of_the_first_layers_first() -> None:
    scores = {n: np.array([2.0, 1.0, 1.0, 0.0]) for n in "abc"}
    shapes = dict.fromkeys("abc", (4, 1, 1, 1))
    assert named("global")(shapes, 6 / 12, lambda: scores) == {"a": 0.75, "b": 0.5, "c": 0.25}


def test_allocations_can_be_pickled() -> None:
    wanted = {"b": 0.25, "a": np.float32(0.5)}
    listed = pickle.loads(pickle.dumps(given_(wanted)))
    assert listed({"a": (2, 2, 1, 1), "b": (2, 2, 1, 1)}, 0.9, dict) == {"a": 0.5, "b": 0.25}
    assert str(listed) == "Given(sparsities={'a': 0.5, 'b': 0.25})"  # as a checkpoint names it
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    there = pickle.loads(pickle.dumps(Pruner(model, "ck", Era(0, 1, 0.9), allocation={"1": 0.5})))
    assert [row.requested for row in there.forecast().layers if row.name == "1"] == [0.5]
