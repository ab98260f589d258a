import numpy as np
import pytest

from campfire.data.keyed import bits, permutation, uniforms


def test_the_numbers_never_change() -> None:
    """Runs are resumed by later versions, on other machines."""
    assert bits(np.arange(2), seed=0).tolist() == [9880295976210645611, 9383023143353325365]
    assert permutation(8, seed=3, epoch=2).tolist() == [3, 7, 0, 2, 1, 6, 4, 5]


def test_a_number_depends_on_its_own_key_alone() -> None:
    index = np.arange(100)
    whole = uniforms(index, seed=5, epoch=2, draws=4)
    assert np.array_equal(uniforms(index[::-1][10:20], seed=5, epoch=2, draws=2), whole[:2, ::-1][:, 10:20])


@pytest.mark.parametrize("other", [{"seed": 2}, {"epoch": 8}, {"draw": 4}, {"seed": -1}, {"seed": 2**70}])
def test_every_part_of_the_key_matters(other: dict[str, int]) -> None:
    key = {"seed": 1, "epoch": 7, "draw": 3}
    same = bits(np.arange(1000), **key) == bits(np.arange(1000), **key | other)
    assert not same.any()


def test_uniforms_are_uniform_and_independent() -> None:
    u = uniforms(np.arange(20_000), seed=1, epoch=0, draws=3)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.stack([np.histogram(row, 10, (0, 1))[0] for row in u])
    assert abs(counts - 2000).max() < 5 * 2000**0.5
    assert abs(np.corrcoef(u) - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(u[0, 1:], u[0, :-1])[0, 1]) < 0.03


def test_permutations() -> None:
    orders = [permutation(50, seed=s, epoch=e) for s in range(3) for e in range(3)]
    assert all(sorted(order.tolist()) == list(range(50)) for order in orders)
    assert len({tuple(order.tolist()) for order in orders}) == 9
    places = np.stack([permutation(10, seed=s) for s in range(2000)])
    counts = np.stack([np.bincount(column, minlength=10) for column in places.T])
    assert abs(counts - 200).max() < 75
