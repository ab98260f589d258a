"""Gradual: when it updates, and when it leaves the masks alone; seen by a host that only counts."""

from types import SimpleNamespace
from typing import Any

import pytest

from campfire import Era, OneShot, Steps, methods
from campfire.errors import UnknownName, UsageError


class Host:
    """A pruner that writes down what it is asked."""

    def __init__(self, *schedules: Any, every: int = 1):
        self.stages = [SimpleNamespace(schedule=s, applied=None, updates=0) for s in schedules]
        self.steps, self.every = 0, every
        self.log: list[tuple[int, int, float]] = []

    def update(self, stage: Any, target: float, layers: Any = None) -> None:
        stage.applied, stage.updates = target, stage.updates + 1
        self.log.append((self.steps, self.stages.index(stage), round(target, 4)))

    def run(self, method: methods.Method, steps: int, pace: int, start: int = 0) -> list[tuple[int, int, float]]:
        for self.steps in range(start, steps):
            method.after_step(self, self.steps / pace)
        return self.log


GRADUAL = methods.named("gradual")


def test_one_update_for_each_new_target():
    log = Host(Era(1, 3, 0.6)).run(GRADUAL, steps=14, pace=2)
    assert log == [(2, 0, 0.0), (4, 0, 0.4222), (6, 0, 0.5778), (8, 0, 0.6)]


def test_nothing_before_the_start():
    assert Host(Era(5, 3, 0.6, initial=0.2)).run(GRADUAL, steps=10, pace=2) == []


def test_updates_wait_for_their_turn_but_the_target_does_not():
    log = Host(Era(0, 2, 0.6, by="step"), every=3).run(GRADUAL, steps=10, pace=2)
    assert [step for step, _, _ in log] == [0, 3, 4]
    assert log[-1] == (4, 0, 0.6)


def test_a_start_behind_the_era_goes_straight_to_the_target():
    assert Host(Era(1, 3, 0.6)).run(GRADUAL, steps=99, pace=2, start=97) == [(97, 0, 0.6)]


def test_phases_take_turns():
    log = Host(OneShot(1, 0.3), Steps(((2, 0.5), (3, 0.7)))).run(GRADUAL, steps=5, pace=1)
    assert log == [(1, 0, 0.3), (2, 1, 0.5), (3, 1, 0.7)]


def test_a_target_that_falls_is_left_alone():
    host = Host(OneShot(0, 0.6))
    host.stages[0].applied = 0.7
    assert host.run(GRADUAL, steps=3, pace=1) == []


def test_names():
    assert methods.named("iterative:threshold=0.5").step == 0.25
    assert str(methods.named("iterative:threshold=0.5,step=0.1")) == "iterative:threshold=0.5,step=0.1"
    for spec in methods.REGISTRY:
        assert str(methods.named(spec)) == spec
    with pytest.raises(UnknownName, match="no method is called 'gradully'; did you mean 'gradual'"):
        methods.named("gradully")
    with pytest.raises(UnknownName, match="did you mean 'threshold'"):
        methods.named("iterative:treshold=1")
    with pytest.raises(UsageError, match="is of type float; got 'high'"):
        methods.named("iterative:threshold=high")


def test_a_subclass_without_a_name_of_its_own_does_not_replace_its_parent():
    type("Mine", (type(GRADUAL),), {})
    assert type(methods.named("gradual")) is type(GRADUAL)
