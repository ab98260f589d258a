"""Every registered method passes the public suite: budgets after every step, bit-exact resumes, skipped steps, freezing."""

import pytest

from campfire import Era, OneShot, Steps
from campfire.methods import REGISTRY
from campfire.testing import check_method

ERA = Era(0, 4, 0.5, initial=0.5, by="step")
RISING = Era(1, 3, 0.5, by="step")
LIST = Steps(((1, 0.25), (3, 0.5)))
STRUCTURES = ["fine", "ck", "hrbp:rows=4,channels=2"]
SCHEDULES = {
    "gradual": RISING, "zhu-gupta": RISING, "iterative": LIST, "lottery": LIST, "l1-filter": LIST, "prunetrain": RISING,
    "clicktrain": RISING,
    **dict.fromkeys(("snip", "grasp", "synflow", "random", "magnitude"), OneShot(0, 0.5)),
    **dict.fromkeys(("set", "rigl", "dsr", "deepr"), ERA),
}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")


def test_every_method_is_here() -> None:
    assert set(SCHEDULES) == set(REGISTRY)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_method_conforms(name: str) -> None:
    filters = name in ("prunetrain", "l1-filter")
    structures = ["filter"] if filters else STRUCTURES
    assert check_method(name, structures, [SCHEDULES[name]]) == len(structures)


@pytest.mark.parametrize(
    ("spec", "structure", "schedule", "options"),
    [
        ("rigl:itop=true", "window", ERA, {"every": 4}),
        ("rigl", "combined", RISING, {"allocation": "erk"}),
        ("rigl", "tiles:rows=4,channels=2", ERA, {}),
        ("dsr:threshold=0.05", "hrbp++:rows=4", ERA, {"allocation": "erk"}),
        ("deepr:hot=1,cold=0.1", "hrbp++:rows=4,taps=5", ERA, {}),
        ("rigl:regroup=false", "hrbp:rows=4", ERA, {}),
        ("set:itop=true", "2:4", Steps(((0, 0.5), (3, 0.5))), {}),
        ("dsr:threshold=0.1", "window:mode=mixed", ERA, {"allocation": {"body": 0.6, "point": 0.3}}),
        ("dsr:threshold=0.05,number=20", "fine", RISING, {"allocation": "global", "score": "random"}),
        ("deepr:hot=1,cold=0.1", "ck", RISING, {"every": 2}),
        ("snip:steps=3", "combined", OneShot(0, 0.5), {"allocation": "global"}),
        ("synflow:rounds=5", "window", OneShot(1, 0.5), {"allocation": "global"}),
        ("grasp", "hrbp++:rows=4", OneShot(0, 0.5), {"allocation": "global"}),
        ("lottery:rewind=0.5", "window", LIST, {}),
        ("prunetrain:lam=0.1,threshold=0.2,exact=false", "filter", RISING, {}),
        ("zhu-gupta:updates=2", "fine", RISING, {"every": 4}),
    ],
)
def test_options(spec: str, structure: str, schedule, options) -> None:
    assert check_method(spec, [structure], [schedule], **options) == 1
