"""What a run writes, what it refuses, and how it ends."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from training_runs import records, small

import campfire
from campfire import cli
from campfire.config import from_tree, merge
from campfire.errors import CheckpointError, Diverged, UsageError
from campfire.training import MaskViolation, Result, checkpoint, loop
from campfire.training.build import Parts, build
from campfire.training.loop import Training
from campfire.training.run_directory import FILES


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A finished run."""
    return campfire.train(small(), output=tmp_path_factory.mktemp("done") / "run")


def test_every_file_is_there(done: Result) -> None:
    others = {"attack.json", "kernels.json", "damaged.pt", "report.html"}  # of other commands, or of other runs
    assert {p.name for p in done.output.iterdir()} == set(FILES) - others
    status = json.loads((done.output / "status.json").read_text())
    assert status == {"state": "done", "exit_code": 0, "reason": "", "epoch": 4, "step": 44}


def test_the_summary_says_what_is_true(done: Result) -> None:
    summary = json.loads((done.output / "summary.json").read_text())
    assert summary == done.summary
    weights = load_file(done.output / "model.safetensors")
    pruned = [layer["name"] for layer in summary["layers"] if layer["structure"] == "ck"]
    zeros = sum(int((weights[f"{n}.weight"] == 0).sum()) for n in pruned)
    total = sum(weights[f"{n}.weight"].numel() for n in pruned)
    assert summary["weights"] == total
    assert summary["kept_weights"] == total - zeros
    assert summary["sparsity_true"] == pytest.approx(zeros / total, abs=1e-12)
    assert summary["sparsity_requested"] == pytest.approx(0.7)
    assert summary["epochs"] == 4
    assert summary["seed"] == 3
    assert summary["sparse_macs"] < summary["macs"]
    assert summary["top1"] == records(done.output)[-1]["eval_top1"]
    assert summary["best_top1"] == summary["top1"]  # the target is reached in the last epoch, so no other one counts


def test_the_weights_are_an_ordinary_state_dict(done: Result) -> None:
    file = done.output / "model.safetensors"
    model = campfire.load_run(done.output).model
    fresh = build(small()).model
    assert load_file(file).keys() == fresh.state_dict().keys() == model.state_dict().keys()
    fresh.load_state_dict(load_file(file))
    probe = file.with_name("probe")
    probe.touch()
    assert file.stat().st_mode == probe.stat().st_mode
    probe.unlink()


def test_the_configuration_can_be_used_again(done: Result) -> None:
    tree = yaml.safe_load((done.output / "config.yaml").read_text())
    assert merge([from_tree(tree, "file")])[0] == small()


def test_history(done: Result) -> None:
    table = (done.output / "summary.csv").read_text().splitlines()
    assert table[0].startswith("epoch,step,train_loss,train_top1,eval_loss,eval_top1,eval_top5,lr,")
    assert len(table) == 5
    assert [r["sparsity_requested"] for r in records(done.output)] == pytest.approx([0, 0, 0.6125, 0.7])
    assert [r["step"] for r in records(done.output)] == [11, 22, 33, 44]


def test_a_dense_run_prunes_nothing(tmp_path: Path) -> None:
    summary = campfire.train(small(structure="dense", epochs=1), output=tmp_path / "run").summary
    assert (summary["sparsity_requested"], summary["sparsity_true"], summary["method"]) == (0, 0, None)
    assert summary["kept_weights"] == summary["weights"]
    assert summary["macs"] == summary["sparse_macs"]
    assert (tmp_path / "run" / "best.pt").exists()


def test_best_waits_for_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([99.0, 98.0, 97.0, 50.0, 60.0, 55.0])
    measure = loop.measure

    def measured(*args: Any, **kwargs: Any) -> Any:
        return measure(*args, **kwargs).__class__(loss=1.0, top1=next(accuracies), top5=100.0, images=1)

    monkeypatch.setattr(loop, "measure", measured)
    result = campfire.train(small(epochs=6, era_length=2), output=tmp_path / "run")
    assert (result.summary["top1"], result.summary["best_top1"]) == (55.0, 60.0)
    assert checkpoint.load(tmp_path / "run" / "best.pt")["epoch"] == 5


def test_json_is_one_line_last_on_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "digits", "--model", "resnet8", "--model-kwargs", "width=0.25", "--epochs", "1", "--json"]
    assert cli.main([*argv, "--output", str(tmp_path / "run"), "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    keys = "top1 top5 sparsity_requested sparsity_true kept_weights layers epochs seconds output"
    assert set(keys.split()) <= json.loads(line).keys()
    assert "epoch 1/1: loss" in err


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", "--model-kwargs", "width=0.25", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert cli.main([*argv, "--threads", "1"]) == 0
    assert "resnet8 on digits, ck" in capsys.readouterr().out


def test_dry_run_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--dry-run", "--rules", "layer1.*=window", "conv1=dense"]) == 0
    out = capsys.readouterr().out
    assert "window" in out
    assert "dense: a rule leaves it dense" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"structure": "windwo"}, "did you mean 'window'"),
        ({"model": "resnet9"}, "did you mean 'resnet"),
        ({"score": "magnitud"}, "did you mean 'magnitude'"),
        ({"method": "gradul"}, "did you mean 'gradual'"),
        ({"allocation": "erkk"}, "did you mean 'erk'"),
        ({"rules": {"layer9.*": "ck"}}, "layer9"),
        ({"rules": {"conv1": "window:mode=campfire", "fc": "2:4x"}}, "no structure is called '2'"),
        ({"schedule": "oneshot", "era_start": 4}, "the last of 4 epochs"),
        ({"steps": "1:0.3 5:0.5"}, "the last of 4 epochs"),
        ({"schedule": "steps", "steps": "2:0.5 1:0.6"}, "must rise"),
        ({"method": "iterative", "schedule": "era"}, "does not fit this schedule"),
        ({"structure": "inter-epoch", "era_start": 0, "era_length": 3, "rules": {"fc": "fine"}}, "inter-epoch brings"),
        ({"data": "no/such/folder"}, "no/such/folder"),
        ({"data_options": {"val_splt": 0.2}}, "no data option is called 'val_splt'; did you mean 'val_split'?"),
        ({"device": "cuda:99"}, "there is no device 'cuda:99'"),
        ({"pretrained": "none.safetensors"}, "there is no file none.safetensors"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    flags: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        campfire.train(small(**flags), output=tmp_path / "run")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_an_output_with_another_run_is_left_alone(done: Result, tmp_path: Path) -> None:
    before = {p.name: p.read_bytes() for p in done.output.iterdir()}
    with pytest.raises(UsageError, match="holds another run"):
        campfire.train(small(seed=4), output=done.output)
    with pytest.raises(CheckpointError, match=r"run.seed is 4 here and 3 in the checkpoint"):
        campfire.train(small(seed=4), output=done.output, resume="auto")
    with pytest.raises(UsageError, match="holds another run"):
        campfire.train(small(), output=done.output, resume=_copy(done, tmp_path))
    assert {p.name: p.read_bytes() for p in done.output.iterdir()} == before
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(UsageError, match="is a file"):
        campfire.train(small(), output=file)


def _copy(done: Result, tmp_path: Path) -> Path:
    path = tmp_path / "last.pt"
    path.write_bytes((done.output / "last.pt").read_bytes())
    return path


def test_overwrite_replaces_the_run_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "run"
    campfire.train(small(epochs=4), output=output)
    (output / "notes.txt").write_text("mine")
    campfire.train(small(epochs=1, structure="dense"), output=output, overwrite=True)
    assert len(records(output)) == 1
    assert (output / "notes.txt").read_text() == "mine"


def test_a_change_can_be_allowed(done: Result, tmp_path: Path) -> None:
    start = _copy(done, tmp_path)
    changed = small(epochs=5, era_start=1, era_length=2, lr=0.01)
    with pytest.raises(CheckpointError, match=r"optim.epochs is 5 here and 4 .*; optim.lr is 0.01 here"):
        campfire.train(changed, resume=start)
    result = campfire.train(changed, resume=start, allow_config_change=True)
    assert result.output == tmp_path
    assert [r["epoch"] for r in records(tmp_path)] == [0, 1, 2, 3, 4]
    assert records(tmp_path)[-1]["lr"] < 0.01


def test_a_dense_run_can_go_on_pruned(tmp_path: Path) -> None:
    dense = campfire.train(small(structure="dense", epochs=1), output=tmp_path / "dense")
    start = dense.output / "last.pt"
    torch.save(checkpoint.load(start) | {"best": 100.0}, start)
    result = campfire.train(small(), output=tmp_path / "ck", resume=start, allow_config_change=True)
    assert [r["sparsity_requested"] for r in records(result.output)] == pytest.approx([0, 0, 0.6125, 0.7])
    assert result.summary["best_top1"] == result.top1  # not the dense weights'
    assert json.loads((dense.output / "status.json").read_text())["epoch"] == 1


def test_other_images_than_the_checkpoints(tmp_path: Path) -> None:
    flags = {"data": "synthetic:images=64,size=16", "epochs": 1, "structure": "dense", "batch_size": 32}
    start = campfire.train(small(**flags), output=tmp_path / "run").output
    other = small(**flags | {"data": "synthetic:images=64,size=16,seed=1", "epochs": 2})
    with pytest.raises(
        CheckpointError, match=r"images.fingerprint is \w+ here and \w+ in the .*optim.epochs is 2 here"
    ):
        campfire.train(other, resume=start)


def poison_after(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """NaN in the weights once so many steps are done."""
    step = Training._step

    def poisoned(self: Training) -> None:
        step(self)
        if self.at.step == number:
            next(self.parts.model.parameters()).data[0] = math.nan

    monkeypatch.setattr(Training, "_step", poisoned)


def test_divergence_keeps_the_last_good_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_after(monkeypatch, 15)
    with pytest.raises(Diverged, match="epoch 1, step 15") as caught:
        campfire.train(small(), output=tmp_path / "run")
    assert caught.value.exit_code == 3
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"], status["epoch"]) == ("diverged", 3, 1)
    saved = checkpoint.load(tmp_path / "run" / "last.pt")
    assert saved["epoch"] == 1
    assert all(torch.isfinite(v).all() for v in saved["model"].values())


def test_what_the_very_last_step_broke_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_after(monkeypatch, 22)
    with pytest.raises(Diverged, match="epoch 1, step 22"):
        campfire.train(small(epochs=2, structure="dense"), output=tmp_path / "run")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "diverged"
    assert checkpoint.load(tmp_path / "run" / "last.pt")["epoch"] == 1


def test_a_test_loss_that_overflows_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it may in half precision while running statistics are young: the weights are sound."""
    measure = loop.measure
    monkeypatch.setattr(loop, "measure", lambda *a, **k: dataclasses.replace(measure(*a, **k), loss=math.nan))
    assert campfire.train(small(epochs=1, structure="dense"), output=tmp_path / "run").summary["epochs"] == 1


def test_revived_weights_fail_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close = Training._close_epoch

    def revive(self: Training, accuracy: Any) -> None:
        close(self, accuracy)
        if self.at.epoch == 4:
            self.parts.model.get_parameter("layer2.0.conv1.weight").data[:] = 1.0

    monkeypatch.setattr(Training, "_close_epoch", revive)
    with pytest.raises(MaskViolation, match=r"layer 'layer2.0.conv1': \d+ dead weights are not zero") as caught:
        campfire.train(small(), output=tmp_path / "run")
    assert caught.value.exit_code == 4
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_report_that_cannot_be_written_takes_no_run_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(run: Path) -> None:
        raise UsageError(f"cannot write {run / 'report.md'}: No space left on device")

    monkeypatch.setattr(loop.report, "write_run_report", full)
    run = campfire.train(small(), output=tmp_path / "run").output
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert "No space left on device; campfire report " in (run / "log.txt").read_text()


def test_the_default_output_is_new_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = [campfire.train(small(epochs=1, structure="dense")).output for _ in range(2)]
    assert outputs[0] != outputs[1]
    assert all(o.parent == Path("runs") and "-resnet8-digits" in o.name for o in outputs)


def test_pretrained_weights(done: Result, tmp_path: Path) -> None:
    for file in ("model.safetensors", "last.pt"):
        parts = build(small(pretrained=str(done.output / file)))
        assert_same_weights(parts, load_file(done.output / "model.safetensors"))
    torch.save({"state_dict": done.model.state_dict()}, tmp_path / "weights.pt")
    assert_same_weights(build(small(pretrained=str(tmp_path / "weights.pt"))), done.model.state_dict())
    with pytest.raises(CheckpointError, match=r"are of another model: .*conv1.weight"):
        build(small(pretrained=str(done.output / "last.pt"), model_kwargs={"width": 0.5}))


def assert_same_weights(parts: Parts, state: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(v, state[k]) for k, v in parts.model.state_dict().items())


def test_rules_go_before_the_structure_and_scope_all_takes_every_convolution() -> None:
    def structures(**flags: Any) -> dict[str, str | None]:
        return {r.name: r.structure for r in build(small(**flags)).report().layers}

    mixed = structures(rules={"layer1.*": "window", "fc": "fine", "layer3.0.conv1": "dense"})
    assert mixed["conv1"] is mixed["layer3.0.conv1"] is None
    assert (mixed["layer1.0.conv1"], mixed["layer2.0.conv1"], mixed["fc"]) == ("window", "ck", "fine")
    assert structures(scope="all")["conv1"] == "ck"
    wide = {"model_kwargs": {"width": 4}, "structure": "cpu"}
    every = structures(**wide, rules={"layer1.*": "window"})
    assert (every["conv1"], every["layer1.0.conv1"]) == (None, "window")
    assert (every["layer2.0.conv1"], every["layer2.0.downsample.0"]) == ("ck", "tiles")
    with pytest.raises(UsageError, match="rule set"):
        structures(**wide, scope="all")
    only = structures(structure="dense", rules={"layer2.*": "ck"})
    assert {n for n, s in only.items() if s} == {"layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"}


def test_one_and_two_epochs_reach_the_target(tmp_path: Path) -> None:
    for epochs in (1, 2):
        flags = {"epochs": epochs, "era_start": None, "era_length": None}
        summary = campfire.train(small(**flags), output=tmp_path / str(epochs)).summary
        assert summary["sparsity_requested"] == pytest.approx(0.7)
        assert summary["best_top1"] is not None


def test_a_sparsity_for_each_layer() -> None:
    lines = {"layer2.0.conv1": 0.5, "layer2.0.conv2": 0.75}
    parts = build(small(structure="dense", rules=dict.fromkeys(lines, "ck"), allocation=lines))
    assert parts.pruner is not None
    parts.pruner.update(parts.pruner.stages[0], 0.7)
    assert {r.name: r.true for r in parts.report().layers if r.structure} == lines


def test_images_may_have_moved(tmp_path: Path) -> None:
    flags = {"epochs": 1, "structure": "dense", "batch_size": 32}
    run = campfire.train(small(**flags, data="synthetic:images=64,size=16"), output=tmp_path / "run").output
    again = campfire.train(small(**flags, data="synthetic:size=16,images=64"), resume=run)
    assert len(records(again.output)) == 1


def test_resume_auto_needs_an_output() -> None:
    with pytest.raises(UsageError, match="--resume auto looks into --output"):
        campfire.train(small(), resume="auto")
