"""Two processes: equal masks and weights on both, those that one process finds, and every stop is one of both.

One pair of processes plays all scenes; the tests look at what they left.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from training_runs import assert_equal_runs, records, small

import campfire
from campfire.errors import CampfireError, CheckpointError, Diverged, UsageError
from campfire.training import Preempted, checkpoint
from campfire.training.loop import Training
from campfire.training.ranks import Ranks

pytestmark = pytest.mark.xdist_group("distributed")  # one process trains for all

# 84 training images, 5 batches of 2 x 8, 3 steps an epoch, the last one of a single batch; 21 test images: 11 and 10.
BASE: dict[str, Any] = {
    "data": "synthetic:classes=3,images=84,size=8", "model": "training_runs:plain_net", "model_kwargs": {},
    "img_size": None, "batch_size": 8, "validation_batch_size": 5, "grad_accum_steps": 2, "epochs": 3, "era_start": 0,
    "era_length": 1.5, "era_by": "step", "lr": 0.02, "lr_base_size": 16, "dispatch": "model",
}  # fmt: skip
NOISY = BASE | {
    "model": "training_runs:dropout_net",
    "data": "synthetic:classes=3,images=84,size=16",
    "model_ema": True,
}
STEP, BACKWARD = Training._step, Training._backward


def final(result: Any) -> dict[str, Any]:
    summary = {k: v for k, v in result.summary.items() if k != "seconds"}
    return {"summary": summary, "state": result.model.state_dict()}


def plain(rank: int, folder: Path) -> Any:
    return final(campfire.train(small(**BASE), output=folder / "plain"))


def compressed(rank: int, folder: Path) -> Any:
    return final(campfire.train(small(**BASE, compress=True), output=folder / "compressed"))


def whole(rank: int, folder: Path) -> Any:
    return final(campfire.train(small(**NOISY), output=folder / "whole"))["summary"]


def stopped(rank: int, folder: Path) -> Any:
    """One rank gets a signal, between the two batches of a step."""

    def backward(self: Training, *args: Any) -> None:
        BACKWARD(self, *args)
        if rank == 1 and (self.at.epoch, self.at.batch) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)

    Training._backward = backward
    with pytest.raises(Preempted) as caught:
        campfire.train(small(**NOISY), output=folder / "cut")
    Training._backward = BACKWARD
    if rank == 0:
        (folder / "cut.pt").write_bytes((folder / "cut" / "last.pt").read_bytes())
    campfire.train(small(**NOISY), output=folder / "cut", resume="auto")
    return str(caught.value)


def diverged(rank: int, folder: Path) -> Any:
    """One rank sees a loss that is no number."""

    def step(self: Training) -> None:
        if rank == 1 and self.at.step == 2:
            self.at.sums[0] = torch.nan
        STEP(self)

    Training._step = step
    with pytest.raises(Diverged) as caught:
        campfire.train(small(**BASE), output=folder / "diverged")
    Training._step = STEP
    return str(caught.value)


def refused(rank: int, folder: Path) -> Any:
    """Ranks that were asked for different things; and a rank that cannot be served."""
    errors = []
    for flags in ({"seed": rank}, {"model": "resnet9"} if rank else {}):
        with pytest.raises(CampfireError) as caught:
            campfire.train(small(**BASE | flags), output=folder / "refused")
        errors.append((str(caught.value), caught.value.exit_code, caught.value.told))
    return errors


SCENES = (plain, compressed, whole, stopped, diverged, refused)


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {scene.__name__: scene(rank, Path(folder)) for scene in SCENES}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()  # nobody hangs up while the other still listens
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The folder of the runs, and what each rank saw."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.multiprocessing.start_processes(work, (str(folder),), 2, start_method="forkserver")
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


Played = tuple[Path, list[dict[str, Any]]]


@pytest.mark.parametrize("scene", ["plain", "compressed"])
def test_ranks_hold_equal_weights_and_masks_bit_for_bit(played: Played, scene: str) -> None:
    first, second = (rank[scene] for rank in played[1])
    assert first["summary"] == second["summary"]
    assert first["summary"]["sparsity_true"] == pytest.approx(0.7, abs=0.01)
    assert [n for n, x in first["state"].items() if not torch.equal(x, second["state"][n])] == []


def test_two_processes_learn_what_one_learns_from_the_same_images(played: Played, tmp_path: Path) -> None:
    folder, _ = played
    alone = campfire.train(small(**BASE | {"batch_size": 16}), output=tmp_path / "alone").output
    one, two, packed = (
        load_file(run / "model.safetensors") for run in (alone, folder / "plain", folder / "compressed")
    )
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(packed[name], weight, rtol=1e-4, atol=1e-6)
        assert torch.equal(two[name] == 0, weight == 0), "masks"
    for ours, theirs in zip(records(folder / "plain"), records(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert "compressed" in (folder / "compressed" / "log.txt").read_text()


def test_every_test_image_counts_once(played: Played) -> None:
    folder, _ = played
    for record in records(folder / "plain"):
        right = record["eval_top1"] / 100 * 21
        assert right == pytest.approx(round(right), abs=1e-9)
    log = (folder / "plain" / "log.txt").read_text()
    assert "batch 8 x 2 x 2" in log
    assert "learning rate 0.02 x 32 / 16 = 0.04" in log
    assert "img/s" in log
    assert json.loads((folder / "plain" / "env.json").read_text())["world_size"] == 2
    assert log.count("epoch 1/3") == 1, "one process speaks"


def test_ranks_judge_the_network_that_is_kept(played: Played) -> None:
    """Whose running statistics are the first rank's; alone, each rank has others."""
    found = campfire.evaluate(played[0] / "whole")
    last = records(played[0] / "whole")[-1]
    assert (found["top1"], found["images"]) == (pytest.approx(last["eval_top1"]), 21)
    assert found["loss"] == pytest.approx(last["eval_loss"], rel=1e-6)


def test_a_signal_to_one_rank_stops_all_after_the_same_step_and_resumes_bit_for_bit(played: Played) -> None:
    folder, ranks = played
    assert [rank["stopped"] for rank in ranks] == ["stopped by SIGTERM; continue with --resume"] * 2
    saved = checkpoint.load(folder / "cut.pt")
    assert (saved["epoch"], saved["batch"], saved["step"], len(saved["others"])) == (1, 4, 5, 1)
    assert not torch.equal(saved["rng"]["torch"], saved["others"][0]["rng"]["torch"])
    assert_equal_runs(folder / "cut", folder / "whole")
    states = [torch.load(folder / run / "last.pt", weights_only=True) for run in ("cut", "whole")]
    assert torch.equal(*(state["others"][0]["rng"]["torch"] for state in states))


def test_one_diverges_all_diverge(played: Played) -> None:
    folder, ranks = played
    assert ranks[0]["diverged"] == ranks[1]["diverged"]
    assert json.loads((folder / "diverged" / "status.json").read_text())["state"] == "diverged"


def test_an_error_on_one_rank_is_one_of_all_told_once(played: Played) -> None:
    folder, ranks = played
    (seeds, *_), (model, *_) = ranks[0]["refused"], ranks[0]["refused"][1:]
    assert seeds[0] == "all processes of a run must be given the same: run.seed is 1 on rank 1 and 0 on rank 0"
    assert model[0].startswith("rank 1: no model is called 'resnet9'")
    assert [(code, told) for _, code, told in ranks[0]["refused"]] == [(2, False), (2, False)]
    assert [(code, told) for _, code, told in ranks[1]["refused"]] == [(2, True), (2, True)]
    assert not (folder / "refused").exists()


def test_another_number_of_processes(played: Played, tmp_path: Path) -> None:
    start = tmp_path / "last.pt"
    start.write_bytes((played[0] / "cut.pt").read_bytes())
    before = start.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"in 2 processes, and this one is in 1: .* steps of 8 images instead of 16"
    ):
        campfire.train(small(**NOISY), output=tmp_path, resume="auto")
    assert start.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    result = campfire.train(small(**NOISY), output=tmp_path, resume="auto", allow_world_change=True)
    assert [r["step"] for r in records(result.output)] == [3, 10, 15], "2 of 3 steps done are 3 of 5"
    assert checkpoint.load(start)["others"] == []


def test_processes_that_cannot_meet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"RANK, MASTER_ADDR, MASTER_PORT is not set; start them with torchrun"):
        campfire.train(small(), output=tmp_path / "run")


def test_restarts_need_an_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(UsageError, match="needs --output"):
        campfire.train(small())


def test_a_restart_goes_on_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whether this machine counts it, or another one was lost; the same launch with nothing to go on from begins anew."""
    flags = BASE | {"epochs": 2, "structure": "dense"}
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job 7")
    campfire.train(small(**flags), output=tmp_path)
    for again in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", again)
        campfire.train(small(**flags), output=tmp_path, overwrite=True)
        assert (tmp_path / "log.txt").read_text().count("starting") == 1
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert "continuing" in (tmp_path / "log.txt").read_text()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job 8")  # died before it had replaced what it was told to
    campfire.train(small(**flags), output=tmp_path, overwrite=True)
    assert "continuing" not in (tmp_path / "log.txt").read_text()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(UsageError, match="holds another run"):
        campfire.train(small(**flags), output=tmp_path)


def test_sync_bn_wants_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sync-bn works on GPUs only"):
        campfire.train(small(sync_bn=True, device="cpu"), output=tmp_path / "run")


def test_alone_nothing_is_exchanged() -> None:
    alone, x = Ranks(), torch.ones(2)
    assert (alone.highest(3), alone.total(x) is x, alone.gather(1), alone.from_first("a")) == (3, True, [1], "a")
