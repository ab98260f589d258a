"""Trials that start from another one's checkpoint: which may, and that nothing comes out differently."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_cases import attempts, sweep, write

import campfire
from campfire.errors import UsageError
from campfire.sweep import read_grid
from campfire.training import checkpoint

DENSE = {"list": [{"structure": "dense"}]}


def groups(start: Any, **sparse: Any) -> dict[str, Any]:
    return {"base": {"optim": {"epochs": 9}}, "groups": {"dense": DENSE, "sparse": {"from": start, **sparse}}}


BAD = {
    "no such group": (groups("dens"), "no earlier group is called 'dens'; did you mean 'dense'?"),
    "no group": (groups(3), "must be the name of a group, or hold group, epoch, differs; got 3"),
    "unknown key": (groups({"group": "dense", "epochs": 3}), "no key is called 'epochs'; did you mean 'epoch'?"),
    "unknown option": (groups({"group": "dense", "differs": ["optim.lrr"]}), "did you mean 'optim.lr'?"),
    "epoch": (groups({"group": "dense", "epoch": 0}), "epoch is the number of epochs to take over, 1 or more; got 0"),
    "epoch of what": (
        groups({"group": "dense", "epoch": True}),
        "the number of epochs to take over, 1 or more; got True",
    ),
    "one option": (
        groups({"group": "dense", "differs": "optim.lr"}),
        "differs is a list of options, such as [optim.epochs]",
    ),
    "no options": (
        groups({"group": "dense", "differs": 3}),
        "differs is a list of options, such as [optim.epochs]; got 3",
    ),
    "too late": (groups({"group": "dense", "epoch": 4}), "a trial prunes from epoch 3 on, which leaves no 4 to share"),
    "at init": (groups("dense", base={"pruning": {"method": "snip"}}), "prunes from epoch 0 on, which leaves no 0"),
    "rewinds": (
        groups("dense", base={"pruning": {"method": "lottery"}}),
        "from epoch 0 on, which leaves no 0 to share",
    ),
    "a lasso": (
        groups("dense", base={"pruning": {"method": "prunetrain:rho=0.1", "era_start": 3, "structure": "filter"}}),
        "to share (method prunetrain:rho=0.1); drop from",
    ),
    "differs": (groups("dense", product={"lr": [0.1, 0.2]}), "a trial differs from its parent in optim.lr"),
    "several": (
        {"groups": {"a": {"product": {"lr": [0.1, 0.2]}}, "b": {"from": "a", "base": {"optim": {"lr": 0.3}}}}},
        "0 trials of a have optim.lr 0.3; need one",
    ),
}


@pytest.mark.parametrize(("grid", "message"), BAD.values(), ids=BAD)
def test_what_is_refused(grid: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read_grid(write(tmp_path, grid, stubs=False))


def test_what_may_differ_is_named(tmp_path: Path) -> None:
    start = {"group": "dense", "epoch": 2, "differs": ["optim.lr"]}
    found = read_grid(write(tmp_path, groups(start, product={"lr": [0.1, 0.2]}), stubs=False)).trials
    assert [t.epoch for t in found] == [None, 2, 2]
    assert found[1].parent is found[0]
    assert len({t.key for t in found}) == 3


def test_a_parent_that_ends_early_takes_its_children_with_it(tmp_path: Path) -> None:
    grid = groups({"group": "dense", "epoch": 2})
    found = {
        r.group: r
        for r in sweep(write(tmp_path, grid | {"base": {"model": {"kwargs": {"end": {1: 3}}}}}), tmp_path / "s")
    }
    assert found["dense"].state == "diverged"
    assert (found["sparse"].state, attempts(found["sparse"])) == ("skipped", 0)
    why = "dense is diverged and left no checkpoint after epoch 2: the loss is no finite number any more"
    assert found["sparse"].reason == why


def test_children_start_before_their_parent_ends(tmp_path: Path) -> None:
    grid = groups({"group": "dense", "epoch": 1}) | {"base": {"model": {"kwargs": {"end": {3: 3}}}}}
    found = {r.group: r for r in sweep(write(tmp_path, grid), tmp_path / "s")}
    assert found["sparse"].state == "diverged"  # by itself, having begun after the one epoch
    assert (found["sparse"].path / "attempts.txt").read_text().split()[1].endswith("dense/epoch-1.pt")


def test_a_shared_start_changes_no_bit(tmp_path: Path) -> None:
    """Real trainings: a trial of the sweep, and the same configuration trained by itself."""
    config = {
        "data": {"source": "synthetic:images=48,size=16", "batch_size": 16},
        "model": {"name": "resnet8", "kwargs": {"width": 0.25}},
        "optim": {"epochs": 3},
    }
    given = {"base": config, "groups": groups("dense")["groups"]}
    found = {r.group: r for r in sweep(write(tmp_path, given, stubs=False), tmp_path / "s")}
    assert [found[name].state for name in ("dense", "sparse")] == ["done", "done"], found["sparse"].reason
    alone = campfire.train(config, output=tmp_path / "alone").output
    ours, theirs = (checkpoint.weights(p / "model.safetensors") for p in (found["sparse"].path, alone))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert "continuing at step 3" in (found["sparse"].path / "log.txt").read_text()
