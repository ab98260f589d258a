"""Run directories are read as they are, unfinished ones too; damage and strangers are named."""

import json
import shutil

import pytest
from run_records import write_run

from campfire.errors import CheckpointError, UsageError
from campfire.report.records.gathering import gather
from campfire.report.records.reading import read_run
from campfire.sweep.index import Index


def test_a_finished_run_is_read_whole(runs):
    run = read_run(runs[1])
    assert (run.name, run.done, run.dense) == ("ck70", True, False)
    assert run.summary.model == "resnet20"
    assert [e.epoch for e in run.epochs] == list(range(12))
    assert sum(layer.pruned for layer in run.layers) == 18
    assert run.layers[0].reason == "outside the rules"
    assert run.pruned.sparsity == pytest.approx(0.7, abs=1e-3)
    assert run.convs.sparsity < run.pruned.sparsity  # the first convolution is dense
    assert run.environment["host.cpu"] == "Xeon"
    assert run.config["optim.lr"] == "0.1"
    assert run.model_bytes == 1_100_000


def test_an_unfinished_run_says_what_was_asked_for(tmp_path):
    folder = write_run(tmp_path / "run", state="preempted", seen=4, seed=7)
    run = read_run(folder)
    assert run.status.reason == "SIGTERM"
    assert (run.summary.model, run.summary.structure, run.summary.seed, run.summary.epochs) == ("resnet20", "ck", 7, 12)
    assert (run.summary.top1, run.summary.sparsity_requested, len(run.epochs)) == (None, 0.7, 4)
    assert not run.dense


def test_a_finished_run_that_goes_on_is_not_described_by_its_earlier_end(runs):
    (runs[1] / "status.json").write_text('{"state": "running"}')
    run = read_run(runs[1])
    assert (run.summary.top1, run.layers, run.model_bytes, len(run.epochs)) == (None, (), None, 12)
    assert run.summary.structure == "ck"


def test_a_run_killed_before_its_first_epoch(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {name: resnet8}")
    (tmp_path / "status.json").write_text('{"state": "running"}')
    run = read_run(tmp_path)
    assert (run.summary.model, run.epochs, run.layers, run.model_bytes) == ("resnet8", (), (), None)


def test_a_line_that_a_kill_cut_off_is_left_out(runs):
    path = runs[1] / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert len(read_run(runs[1]).epochs) == 11


def test_a_repeated_epoch_counts_once_and_the_later_one_wins(runs):
    path = runs[1] / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 3, "eval_top1": 1.5}\n')
    epochs = read_run(runs[1]).epochs
    assert [e.epoch for e in epochs] == list(range(12))
    assert epochs[3].eval_top1 == 1.5


def test_numbers_that_are_not_finite_are_not_measured(runs):
    path = runs[1] / "metrics.jsonl"
    path.write_text('{"epoch": 0, "train_loss": NaN, "eval_loss": Infinity, "eval_top1": 1e999}\n')
    epoch = read_run(runs[1]).epochs[0]
    assert (epoch.train_loss, epoch.eval_loss, epoch.eval_top1) == (None, None, None)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.jsonl", '{"epoch": 0}\n{broken\n{"epoch": 2}\n', "line 2"),
        ("metrics.jsonl", '{"epoch": "three"}\n', "epoch"),
        ("summary.json", '{"top1": 9', "not JSON"),
        ("summary.json", "[1, 2]", "JSON object"),
        ("summary.json", '{"top1": "high"}', "top1"),
        ("sparsity.json", '{"layers": [{"shape": [3]}]}', "layers|0.name"),
        ("sparsity.json", '{"layers": 5}', "sparsity.json"),
        ("status.json", "[" * 100_000, "status.json"),
        ("config.yaml", "a: [", "not YAML"),
        ("config.yaml", "- 1", "sections"),
        ("env.json", b"\xff\xfe\x00", "env.json"),
    ],
)
def test_damage_names_the_file(runs, file, content, said):
    (runs[1] / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CheckpointError, match=said) as caught:
        read_run(runs[1])
    assert file in str(caught.value)


def test_what_is_no_run_is_told_what_is_missing(tmp_path, runs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no config\.yaml and no status\.json"):
        gather([tmp_path / "empty"])
    (runs[0] / "status.json").unlink()
    with pytest.raises(UsageError, match=r"it has no status\.json"):
        gather([runs[0]])
    with pytest.raises(UsageError, match=r"no folder '.*nowhere', and no '.*dens' \(did you mean '.*dense'\?\)"):
        gather([tmp_path / "nowhere", runs[1], tmp_path / "dens"])
    with pytest.raises(UsageError, match="not a folder"):
        gather([runs[1] / "status.json"])
    with pytest.raises(UsageError, match="at least one"):
        gather([])


def test_a_folder_of_runs_is_these_runs(tmp_path, runs):
    (tmp_path / "notes").mkdir()
    assert [run.name for run in gather([tmp_path])[0]] == ["ck70", "dense"]
    assert [run.name for run in gather([tmp_path, runs[1]])[0]] == ["ck70", "dense"]


def test_what_cannot_be_read_is_left_out_with_its_reason(tmp_path, runs):
    half, broken = tmp_path / "half", write_run(tmp_path / "broken")
    half.mkdir()
    (half / "config.yaml").write_text("{}")
    (broken / "summary.json").write_text('{"top1": 9')
    found, left_out = gather([*runs, half, broken])
    assert [run.name for run in found] == ["dense", "ck70"]
    assert [one.name for one in left_out] == ["half", "broken"]
    assert "no status.json" in left_out[0].reason
    assert "summary.json is not JSON" in left_out[1].reason
    with pytest.raises(CheckpointError, match="not JSON"):
        gather([broken])


def test_a_sweep_is_its_trials(tmp_path, runs):
    sweep = tmp_path / "sweep"
    specs = {name: {"group": "", "values": {}, "seed": 0, "parent": None, "epoch": None} for name in ("a", "b", "c")}
    with Index.create(sweep) as index, index.transaction():
        index.add((name, name, spec) for name, spec in specs.items())
        states = {"a": ("done", ""), "b": ("skipped", "its parent failed"), "c": ("pending", "")}
        for row in index.rows():
            index.set(row, *states[row.name])
    with pytest.raises(UsageError, match="no trial has written anything yet; a: "):
        gather([sweep])
    write_run(sweep / "a")
    found, left_out = gather([sweep])
    assert [run.name for run in found] == ["a"]
    assert [one.reason for one in left_out] == ["trial of sweep, skipped: its parent failed", "trial of sweep, pending"]


def test_names_are_as_short_as_tells_the_runs_apart(tmp_path):
    write_run(tmp_path / "a" / "ck")
    for other in ("b/ck", "b/dense"):
        shutil.copytree(tmp_path / "a" / "ck", tmp_path / other)
    paths = [tmp_path / name for name in ("a/ck", "b/ck", "b/dense")]
    assert [run.name for run in gather([*paths, tmp_path / "a" / ".." / "a" / "ck"])[0]] == ["a/ck", "b/ck", "dense"]


def test_unknown_fields_do_not_disturb(runs):
    path = runs[1] / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layers": [], "from_the_future": {"x": 1}}))
    assert read_run(runs[1]).summary.top1 is not None
