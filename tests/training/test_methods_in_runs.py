"""Every method from a configuration: its usual schedule is one that it takes, and the run reaches its target."""

import math
from pathlib import Path

import pytest
from training_runs import assert_equal_runs, small

from campfire.errors import DoesNotFit, UsageError
from campfire.methods import REGISTRY
from campfire.training import train
from campfire.training.build import build

FILTERS = ("prunetrain", "l1-filter")

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")
USUAL = {"era_start": None, "era_length": None}


@pytest.mark.parametrize("method", sorted(REGISTRY))
@pytest.mark.parametrize("epochs", [1, 4])
def test_usual_schedules_fit(method: str, epochs: int) -> None:
    structure = "filter" if method in FILTERS else "tiles:rows=4,channels=2"
    build(small(method=method, structure=structure, epochs=epochs, **USUAL))


@pytest.mark.parametrize("flags", [
    {"method": "rigl", "allocation": "erk"}, {"method": "lottery"}, {"method": "grasp"},
    {"method": "clicktrain", "structure": "pattern"},
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::campfire.errors.Clamped")
def test_interrupted_runs(flags, tmp_path: Path) -> None:
    """Bit for bit, with everything that the loop lends to a method."""
    config = small(**flags, epochs=2, grad_accum_steps=2, recovery_interval=3, **USUAL)
    whole = train(config, output=tmp_path / "whole")
    saves = []

    def stop(path: Path, state, save=None) -> None:
        saves.append(state["step"])
        checkpoint_save(path, state)
        if len(saves) == 1:
            raise KeyboardInterrupt

    from campfire.training import checkpoint

    checkpoint_save = checkpoint.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train(config, output=tmp_path / "halves")
    train(config, output=tmp_path / "halves", resume="auto")
    assert_equal_runs(tmp_path / "whole", tmp_path / "halves")
    assert whole.summary["method"] == flags["method"]


def test_the_learning_rate_of_a_lottery_falls_in_every_round(tmp_path: Path) -> None:
    config = small(method="lottery", steps=((1, 0.3), (2, 0.6)), epochs=4, sched="constant", warmup_epochs=0.5, **USUAL)
    parts = build(config)
    assert parts.pruner is not None
    assert [parts.pruner.lr_time(4, e) for e in (0.5, 1.5, 3.0)] == [(0.5, 1.0), (0.5, 1.0), (1.0, 2.0)]
    train(
        config.model_copy(update={"optim": config.optim.model_copy(update={"sched": "cosine"})}), output=tmp_path / "a"
    )
    import json

    rates = [json.loads(line)["lr"] for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert rates[0] == rates[1] < 0.1 * rates[2]
    assert rates[3] < 0.1 * rates[2]
    assert math.isfinite(sum(rates))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"method": "rigl", "schedule": "oneshot"}, "no time between them"),
        ({"method": "snip", "schedule": "era"}, "prunes once"),
        ({"method": "snip", "schedule": "era", "epochs": 3}, "prunes once"),
        ({"method": "prunetrain", "structure": "ck"}, "use structure 'filter'"),
        ({"method": "rigl", "structure": "inter-epoch", "epochs": 6}, "does not go with --method rigl"),
        ({"method": "grasp", "compile": True}, "grasp needs second derivatives, and compiled models have none"),
        ({"method": "rigl", "era_initial": 0.9}, "initial up to target"),
    ],
)
def test_senseless_combinations(flags, says: str) -> None:
    with pytest.raises((UsageError, DoesNotFit), match=says):
        build(small(**{**USUAL, **flags}))
