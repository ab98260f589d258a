import numpy as np
import pytest

from campfire.data.splitting import stratified
from campfire.errors import UsageError


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.5, 0.99])
def test_every_class_gives_its_share(share: float) -> None:
    labels = np.repeat([0, 1, 2], [10, 33, 57])[np.random.default_rng(0).permutation(100)]
    stay, held = stratified(labels, share)
    assert sorted([*stay, *held]) == list(range(100))
    assert np.array_equal(held, np.sort(held))
    counts = np.bincount(labels[held], minlength=3)
    assert (abs(counts - share * np.array([10, 33, 57])) <= 1).all()
    assert (counts >= 1).all()
    assert (np.bincount(labels[stay], minlength=3) >= 1).all()


def test_the_total_is_met_and_nothing_is_random() -> None:
    labels = np.repeat(np.arange(10), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    stay, held = stratified(labels, 0.2)
    assert (len(stay), len(held)) == (1437, 360)
    assert np.array_equal(stratified(labels, 0.2)[1], held)


@pytest.mark.parametrize("share", [0, 1, -0.1, 2])
def test_shares_that_leave_nothing(share: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        stratified(np.array([0, 0, 1, 1]), share)


def test_a_lonely_image_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="two images of every class; class number 1 has one"):
        stratified(np.array([0, 0, 1]), 0.5)
