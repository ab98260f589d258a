"""Gaps are against the right dense run, and what must be known is said."""

import json

import pytest
from run_records import write_run

from campfire.report.compare import load


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
