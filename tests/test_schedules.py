import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campfire.errors import UnknownName, UsageError
from campfire.schedules import Era, OneShot, Steps, named

# methods.md U-1 (Campfire eq. 1, power 3, initial 0): epoch -> sparsity
U1 = {
    (0.7, 30, 20): {
        29: 0, 30: 0, 31: 0.099838, 32: 0.189700, 33: 0.270113, 34: 0.341600, 35: 0.404687, 36: 0.459900, 37: 0.507762,
        38: 0.548800, 39: 0.583537, 40: 0.612500, 41: 0.636212, 42: 0.655200, 43: 0.669987, 44: 0.681100, 45: 0.689062,
        46: 0.694400, 47: 0.697637, 48: 0.699300, 49: 0.699912, 50: 0.700000, 51: 0.7, 99: 0.7,
    },
    (0.6, 40, 30): {40: 0, 45: 0.252778, 50: 0.422222, 55: 0.525, 60: 0.577778, 65: 0.597222, 70: 0.6},
    (0.8, 0, 10): {
        0: 0, 1: 0.2168, 2: 0.3904, 3: 0.5256, 4: 0.6272, 5: 0.7, 6: 0.7488, 7: 0.7784, 8: 0.7936, 9: 0.7992, 10: 0.8,
    },
}  # fmt: skip


@pytest.mark.parametrize(("era", "values"), U1.items())
def test_u1_equation_1(era: tuple[float, float, float], values: dict[int, float]) -> None:
    target, start, length = era
    schedule = Era(start, length, target)
    for epoch, sparsity in values.items():
        assert schedule(epoch) == pytest.approx(sparsity, abs=5.1e-7)
        assert schedule(epoch + 0.999) == schedule(epoch)  # constant inside an epoch


@given(
    st.floats(0, 40), st.floats(0.1, 40), st.floats(0, 0.99), st.floats(0.5, 5), st.sampled_from(["epoch", "step"]),
    st.lists(st.floats(0, 100), min_size=2, max_size=20),
)  # fmt: skip
def test_an_era_never_falls_and_ends_at_its_target(
    start: float, length: float, target: float, power: float, by: str, epochs: list[float]
) -> None:
    era = Era(start, length, target, power=power, by=by)  # pyright: ignore[reportArgumentType]
    values = [era(e) for e in sorted(epochs)]
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(values))
    assert all(0 <= v <= target for v in values)
    assert era(era.end + 1) == target


def test_an_era_by_step_moves_inside_an_epoch() -> None:
    era = Era(0, 10, 0.8, by="step")
    assert era(1) == pytest.approx(0.2168)
    assert era(1.5) == pytest.approx(0.8 - 0.8 * 0.85**3)
    assert not era.over(10)
    assert era.over(10.01)


def test_the_last_epoch_of_an_era_belongs_to_it() -> None:
    era = Era(30, 20, 0.7)  # the paper: while e_i <= e_c <= e_i + l_p
    assert not era.over(50)
    assert not era.over(50.99)
    assert era.over(51)


def test_an_era_starts_from_its_initial_sparsity() -> None:
    era = Era(2, 4, 0.8, initial=0.5)
    assert (era(1), era(2), era(6)) == (0, 0.5, 0.8)


def test_steps_and_one_shot() -> None:
    steps = Steps.every(3, [0.3, 0.5, 0.7], start=1)
    assert [steps(e) for e in (0, 1, 3.9, 4, 7, 70)] == [0, 0.3, 0.3, 0.5, 0.7, 0.7]
    assert (steps.start, steps.end, steps.target) == (1, 7, 0.7)
    assert not steps.over(7)
    assert steps.over(7.01)
    shot = OneShot(at=2, target=0.5)
    assert (shot(1), shot(2), shot.over(2), shot.over(2.5)) == (0, 0.5, False, True)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Era(0, 1, 1.0), r"\[0, 1\); got 1.0"),
        (lambda: Era(0, 1, -0.1), r"got -0.1"),
        (lambda: Era(0, 0, 0.5), "length > 0"),
        (lambda: Era(-1, 1, 0.5), "start >= 0"),
        (lambda: Era(0, 1, 0.5, initial=0.6), "from initial up to target"),
        (lambda: Era(0, 1, 0.5, by="batch"), "no era clock"),  # pyright: ignore[reportArgumentType]
        (lambda: Steps(()), "at least one"),
        (lambda: Steps(((0, 0.5), (1, 0.4))), "must rise"),
        (lambda: Steps(((1, 0.5), (1, 0.6))), "must rise"),
        (lambda: Steps(((0, 1.5),)), "fraction of zeros"),
        (lambda: OneShot(-1, 0.5), "epoch >= 0"),
        (lambda: OneShot(math.nan, 0.5), "epoch >= 0; got nan"),
        (lambda: Era(math.nan, 1, 0.5), "got start=nan"),
        (lambda: Era(0, math.inf, 0.5), "length=inf"),
        (lambda: Steps(((0, 0.5), (math.nan, 0.6))), "must rise"),
        (lambda: Steps((5, 0.5)), r"takes pairs, .* got \(5, 0.5\)"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_bad_schedules_say_why(make, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make()


def test_by_name_and_back() -> None:
    for schedule in (Era(1, 2, 0.5, by="step"), Steps(((0, 0.1), (2, 0.3))), OneShot(0, 0.5)):
        assert named(**schedule.to_dict()) == schedule
    with pytest.raises(UnknownName, match="did you mean 'era'"):
        named("ear")


def test_an_era_of_a_fraction_ends_with_the_epoch_that_reaches_its_target() -> None:
    era = Era(1.5, 3, 0.5)
    assert (era.end, era.last) == (5, 5)
    assert era(4.9) < era(5) == 0.5
    assert not era.over(5)
    assert era.over(6)
    assert Era(1.5, 3, 0.5, by="step").end == 4.5
