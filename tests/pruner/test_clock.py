"""The clock: steps into epochs, at any pace."""

import pytest

from campfire.errors import UsageError
from campfire.pruner.clock import Clock


def test_epochs_are_whole_at_their_ends():
    for pace in (1, 3, 7, 390, 5005):
        clock = Clock()
        clock.pace(pace)
        for epoch in (1, 29, 1000):
            clock.steps = epoch * pace
            assert clock.epoch == epoch


def test_setting_counts_from_there():
    clock = Clock(steps=5, steps_per_epoch=4)
    clock.set(10)
    clock.steps += 6
    assert clock.epoch == 11.5


def test_the_same_pace_keeps_the_origin():
    """Setting the clock to where it stands would round once more, and a resumed run would differ in the last bit."""
    clock = Clock(steps=1, steps_per_epoch=3)
    clock.pace(3)
    assert (clock.epoch_then, clock.steps_then) == (0.0, 0)


def test_epochs_of_no_fixed_length_pass_by_being_set():
    clock = Clock()
    clock.pace(None)
    clock.steps += 1000
    assert clock.epoch == 0
    clock.set(1)
    clock.steps += 7
    assert (clock.epoch, clock.steps) == (1, 1007)


@pytest.mark.parametrize("pace", [390.6, "4", float("nan")])
def test_steps_are_whole(pace):
    with pytest.raises(UsageError, match="steps_per_epoch is whole; got"):
        Clock().pace(pace)


@pytest.mark.parametrize("pace", [0, -2])
def test_an_epoch_has_a_step(pace):
    with pytest.raises(UsageError, match=f"got {pace}"):
        Clock().pace(pace)
