"""Gaps are against the right dense run, and what must be known is said."""

import json

import pytest
from run_records import write_run

from campfire.errors import UsageError
from campfire.report.records.compare import load


def rows(*paths):
    return {row.run: row for row in load(paths).rows}


def said(*paths) -> str:
    report = load(paths)
    return "\n".join([*report.warnings, *report.notes])


def test_the_gap_is_in_points_of_top1(runs):
    found = rows(*runs)
    assert found["ck70"].gap == pytest.approx(found["ck70"].top1 - found["dense"].top1)
    assert found["ck70"].gap < 0
    assert (found["ck70"].against, found["dense"].gap) == ("dense", None)


def test_numbers_come_from_the_files(runs):
    row, summary = rows(*runs)["ck70"], json.loads((runs[1] / "summary.json").read_text())
    sparsity = json.loads((runs[1] / "sparsity.json").read_text())
    assert (row.top1, row.seconds, row.sparse_macs) == (summary["top1"], summary["seconds"], summary["sparse_macs"])
    assert row.sparsity_pruned == summary["sparsity_true"]
    assert (row.sparsity_convs, row.kept_weights) == (sparsity["convs"]["sparsity"], sparsity["model"]["kept"])
    assert row.images_per_second == 295.5  # the median of 290 ... 301


def test_the_dense_run_configured_most_alike_is_the_one(tmp_path):
    far = write_run(tmp_path / "far", structure=None, seed=1, epochs=20)
    near = write_run(tmp_path / "near", structure=None, seed=1)
    other = write_run(tmp_path / "wide", structure=None, kwargs={"width": 2})
    sparse = write_run(tmp_path / "ck")
    assert rows(far, near, other, sparse)["ck"].against == "near"
    assert "ck is compared with near, which differs in more than pruning: run.seed." in said(far, near, sparse)
    assert rows(other, sparse)["ck"].gap is None
    assert "ck has no gap: no finished dense run of resnet20 on digits" in said(other, sparse)


@pytest.mark.parametrize("state", ["running", "preempted", "diverged", "failed"])
def test_an_unfinished_run_has_a_state_and_no_gap(runs, tmp_path, state):
    stopped = write_run(tmp_path / "stopped", state=state, seen=5)
    row = rows(*runs, stopped)["stopped"]
    assert (row.state, row.gap, row.epochs, row.epochs_asked) == (state, None, 5, 12)
    assert row.top1 == json.loads((stopped / "metrics.jsonl").read_text().splitlines()[-1])["eval_top1"]
    assert f"stopped is not finished: {state}" in said(*runs, stopped)
    assert "its numbers are those of epoch 5" in said(*runs, stopped)


def test_an_unfinished_dense_run_is_no_yardstick(tmp_path):
    dense = write_run(tmp_path / "dense", structure=None, state="running", seen=5)
    found = rows(dense, write_run(tmp_path / "ck"))
    assert (found["ck"].gap, found["dense"].structure, found["dense"].sparsity_requested) == (None, None, 0)


def test_rules_prune_though_the_structure_is_dense(tmp_path):
    run = write_run(tmp_path / "rules", structure="window")
    path = run / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"structure": "dense"}))
    assert rows(run)["rules"].structure == "window"


def test_a_missed_target_is_pointed_out(tmp_path):
    hit, missed = write_run(tmp_path / "hit"), write_run(tmp_path / "missed", sparsity_true=0.62)
    assert "missed was asked for 70.00 % zeros and has 62.00 %" in said(hit, missed)
    assert "hit was asked" not in said(hit, missed)


def test_different_machines_are_pointed_out(runs):
    assert "not comparable" not in said(*runs)
    path = runs[1] / "env.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": 8}))
    assert "The runs differ in threads: their seconds are not comparable." in said(*runs)


def test_masks_are_not_said_to_bring_speed(runs):
    assert "A mask alone brings no speed" in said(*runs)
    assert "on disk: 1.10 MB each; zeros are stored" in said(*runs)
    assert "mask" not in said(runs[0])


def edited(run, name: str, **values):
    """The run with other values in one of its files: ``data__source`` stands for ``data.source``."""
    tree = json.loads((run / name).read_text())
    for path, value in values.items():
        *sections, key = path.split("__")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = value
    (run / name).write_text(json.dumps(tree))
    return run


def test_the_dense_run_of_the_same_seed_wherever_its_data_lay(tmp_path):
    first = write_run(tmp_path / "dense0", structure=None, seed=0)
    other = write_run(tmp_path / "dense1", structure=None, seed=1, offset=1)
    moved = edited(other, "config.yaml", data__source="/mnt/other/digits")
    told = edited(moved, "config.yaml", optim__momentum=0.9, optim__nesterov=True)  # as by default
    assert rows(first, told, write_run(tmp_path / "ck1", seed=1))["ck1"].against == "dense1"


def test_data_of_one_name_and_other_classes(tmp_path):
    cats = edited(write_run(tmp_path / "cats", structure=None), "env.json", images__labels="aaaa")
    dogs = edited(write_run(tmp_path / "dogs"), "env.json", images__labels="bbbb")
    with pytest.raises(UsageError, match=r"of 2: digits \(aaaa\) \(cats\); digits \(bbbb\) \(dogs\)"):
        load([cats, dogs])
    assert rows(cats, edited(dogs, "env.json", images__labels="aaaa"))["dogs"].against == "cats"
    assert rows(cats, write_run(tmp_path / "old"))["old"].against == "cats"  # runs did not always say it


def test_made_up_images_are_told_apart_by_how_they_are_made(tmp_path):
    made = [write_run(tmp_path / f"run{i}", structure=None, data="synthetic") for i in (1, 2)]
    for i, run in enumerate(made):
        edited(run, "config.yaml", data__source=f"synthetic:seed={i}")
    with pytest.raises(UsageError, match=r"of 2: synthetic \(synthetic:seed=0\)"):
        load(made)


def test_an_unfinished_run_by_another_spelling(tmp_path):
    done = edited(write_run(tmp_path / "done", data="cifar-10-batches-py"), "config.yaml", data__source="/data/cifar10")
    cut = write_run(tmp_path / "cut", state="diverged", data="/data/cifar10/", seen=3)
    assert rows(done, cut)["cut"].state == "diverged"
    told = edited(write_run(tmp_path / "told", state="failed", data="/elsewhere", seen=3), "env.json", images__name="x")
    with pytest.raises(UsageError, match=r"of 2: cifar-10-batches-py \(done\); x \(told\)"):
        load([done, told])
