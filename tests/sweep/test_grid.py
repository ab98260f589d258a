"""Which trials a grid asks for, and which grids are refused."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sweep_cases import SHARED, write

from campfire.config import Config
from campfire.errors import UsageError
from campfire.sweep import Grid, read_grid
from campfire.sweep.settling import describe
from campfire.sweep.trial import Trial

ROOT = Path(__file__).parents[2]


def read(tmp_path: Path, grid: Any) -> Grid:
    return read_grid(write(tmp_path, grid, stubs=False))


def test_axes_multiply(tmp_path: Path) -> None:
    grid = read(
        tmp_path,
        {
            "base": {"optim": {"epochs": 4}},
            "product": {"pruning.structure": ["ck", "window"], "sparsity": [0.5, 0.6, 0.7]},
            "zip": {"optim.lr": [0.1, 0.2], "batch-size": [32, 64]},
            "list": [{"momentum": 0.8}, {"momentum": 0.9, "opt": "sgd"}],
            "seeds": [3, 4],
        },
    )
    assert len(grid.trials) == 2 * 3 * 2 * 2 * 2
    pairs = {(t.config.optim.lr, t.config.data.batch_size) for t in grid.trials}
    assert pairs == {(0.1, 32), (0.2, 64)}
    assert {t.config.run.seed for t in grid.trials} == {3, 4}
    assert all(t.config.optim.epochs == 4 and t.config.pruning.era_start == 1 for t in grid.trials)


def test_groups_add(tmp_path: Path) -> None:
    found = describe(read(tmp_path, SHARED))
    assert [(t["name"], t["parent"], t["epoch"]) for t in found] == [
        ("dense-seed0", None, None),
        ("dense-seed1", None, None),
        ("sparse-ck-seed0", "dense-seed0", 6),
        ("sparse-ck-seed1", "dense-seed1", 6),
        ("sparse-window-seed0", "dense-seed0", 6),
        ("sparse-window-seed1", "dense-seed1", 6),
    ]
    assert found[3]["values"] == {"pruning.structure": "ck", "run.seed": 1}


def test_a_dense_trial_has_no_sparsity(tmp_path: Path) -> None:
    grid = read(
        tmp_path, {"groups": {"a": {"list": [{"structure": "dense"}]}, "b": {"product": {"sparsity": [0.5, 0.6]}}}}
    )
    values = [t["values"] for t in describe(grid)]
    assert values == [
        {"pruning.structure": "dense"},
        {"pruning.structure": "ck", "pruning.sparsity": 0.5},
        {"pruning.structure": "ck", "pruning.sparsity": 0.6},
    ]


def test_what_the_bases_of_groups_say_tells_trials_apart(tmp_path: Path) -> None:
    groups = {"a": {"base": {"optim": {"lr": 0.1}}}, "b": {"base": {"optim": {"lr": 0.2}}}}
    assert [t["values"] for t in describe(read(tmp_path, {"groups": groups}))] == [{"optim.lr": 0.1}, {"optim.lr": 0.2}]


def test_the_base_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("optim: {epochs: 7}\n")
    grid = read(tmp_path, {"base": "base.yaml", "groups": {"a": None, "b": {"base": {"optim": {"lr": 0.5}}}}})
    assert [(t.config.optim.epochs, t.config.optim.lr) for t in grid.trials] == [(7, 0.1), (7, 0.5)]


BAD = {
    "not YAML": ("{", "is not YAML"),
    "no mapping": ("[1]", "must hold the keys base, product"),
    "empty": ("", "must hold the keys base, product"),
    "unknown part": ({"produkt": {"lr": [1]}}, "no part of a grid is called 'produkt'; did you mean 'product'?"),
    "unknown option": ({"product": {"pruning.sparsty": [0.5]}}, "did you mean 'pruning.sparsity'?"),
    "unknown flag": ({"product": {"sparsty": [0.5]}}, "no option is called 'sparsty'; did you mean 'sparsity'?"),
    "unknown section": ({"base": {"optimizer": {}}}, "no section is called 'optimizer'; did you mean 'optim'?"),
    "value out of range": ({"product": {"sparsity": [1.5]}}, "pruning.sparsity: input should be less than 1; got 1.5"),
    "empty axis": ({"product": {"lr": []}}, "product: lr: needs a list of one value or more; got []"),
    "no list": ({"product": {"lr": 0.1}}, "product: lr: needs a list of one value or more; got 0.1"),
    "no axes": ({"product": {}}, "product: must hold options and their values"),
    "no seeds": ({"seeds": []}, "seeds: needs a list"),
    "a seed": ({"seeds": 3}, "seeds: needs a list of one value or more; got 3"),
    "no points": ({"list": [3]}, "list: must hold options and their values; got 3"),
    "uneven": ({"zip": {"lr": [1, 2], "momentum": [0.5]}}, "of one length; got 2 of optim.lr, 1 of optim.momentum"),
    "set twice": ({"product": {"lr": [1, 2]}, "list": [{"optim.lr": 3}]}, "optim.lr is set by two axes"),
    "twice the same": ({"product": {"lr": [1, 1.0]}}, "trials 1 and 2 of 2 are the same"),
    "dense twice": (
        {"product": {"structure": ["dense", "ck"], "sparsity": [0.5, 0.6]}},
        "trials 1 and 3 of 4 are the same: a dense run has no further pruning; give it a group of its own",
    ),
    "beside groups": ({"groups": {"a": None}, "product": {"lr": [1]}}, "product stands beside groups"),
    "no groups": ({"groups": []}, "groups: must hold groups by name"),
    "era too late": ({"base": {"optim": {"epochs": 5}}, "product": {"era_start": [1, 7]}}, "the era would run from"),
    "command": ({"command": 3}, "command: must be the words of a command"),
    "give up": ({"give_up": {"epoch": 0, "top1": 3}}, "a whole epoch above 0 and a top1 in percent"),
    "give up when": ({"give_up": {"epoch": True, "top1": 3}}, "a whole epoch above 0 and a top1 in percent"),
    "give up at the end": (
        {"base": {"optim": {"epochs": 9}}, "give_up": {"epoch": 9, "top1": 3}},
        "give_up looks after epoch 9, and trials end after 9; look earlier",
    ),
    "give up what": ({"give_up": {"epoch": 1, "top1": 3, "top5": 4}}, "no key of give_up is called 'top5'"),
}


@pytest.mark.parametrize(("grid", "message"), BAD.values(), ids=BAD)
def test_what_is_refused(grid: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read(tmp_path, grid)


def test_the_demonstration() -> None:
    found = describe(read_grid(ROOT / "recipes" / "demo-grid.yaml"))
    assert [(t["name"], t["epoch"]) for t in found if t["seed"] == 0] == [
        ("dense-seed0", None),
        ("sparse-ck-seed0", 4),
        ("sparse-window-seed0", 4),
        ("sparse-combined-seed0", 4),
    ]
    assert len(found) == 8


def test_the_papers_tables_on_a_small_network() -> None:
    found = describe(read_grid(ROOT / "recipes" / "cifar10-grid.yaml"))
    starts = Counter((t["group"], t["parent"], t["epoch"]) for t in found if t["seed"] == 0)
    assert starts == {
        ("dense", None, None): 1,
        ("structures", "dense-seed0", 9): 3,
        ("sparsities", "dense-seed0", 9): 9,
        ("eras", "dense-seed0", 6): 3,
        ("eras", "dense-seed0", 9): 3,
        ("eras", "dense-seed0", 12): 3,
        ("scratch", None, None): 3,
    }
    assert len(found) == 33


def test_the_grid_of_the_documentation(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "sweeps.md").read_text(), re.DOTALL)
    (tmp_path / "grid.yaml").write_text(text)
    assert len(read_grid(tmp_path / "grid.yaml").trials) == 2 + 4 * 2


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the grid .*No such file"):
        read_grid(tmp_path / "none.yaml")


NUMBERS = st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True)
TEXTS = st.lists(st.sampled_from(["ck", "window:mode=mixed", "dense", "2:4", "pattern"]), min_size=1, unique=True)


@settings(max_examples=25)
@given(NUMBERS, TEXTS, NUMBERS)
def test_keys_and_names_tell_trials_apart(seeds: list[int], structures: list[str], workers: list[int]) -> None:
    configs = [
        Config.model_validate({"run": {"seed": s}, "pruning": {"structure": x}, "data": {"workers": workers[0]}})
        for s in seeds
        for x in structures
    ]
    axes = frozenset({"run.seed", "pruning.structure"})
    trials = tuple(Trial("a/b c", config, axes) for config in configs)
    found = [t["name"] for t in describe(Grid(trials))]
    assert len(set(found)) == len({t.key for t in trials}) == len(seeds) * len(structures)
    assert all(re.fullmatch(r"[A-Za-z0-9.+-]+", name) for name in found)
    other = [Trial("c", c.model_copy(update={"data": c.data.model_copy(update={"workers": 7})}), axes) for c in configs]
    assert [t.key for t in other] == [t.key for t in trials]  # workers decide nothing


def test_no_trial_is_called_as_what_lies_beside_it() -> None:
    trials = tuple(Trial(name, Config(), frozenset()) for name in ("report", "slurm"))
    assert all(re.fullmatch(r"(report|slurm)-[0-9a-f]{8}", t["name"]) for t in describe(Grid(trials)))
