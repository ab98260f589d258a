"""A training in a process of its own, which others may kill, cheat about the time, or leave without room on the disk."""

import contextlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file

SMALL: dict[str, Any] = {
    "data": "digits", "model": "resnet8", "model_kwargs": {"width": 0.25}, "epochs": 4, "era_start": 1, "era_length": 2,
    "img_size": 16, "batch_size": 128, "seed": 3, "threads": 1, "validation_batch_size": 400, "recovery_interval": 3,
}  # fmt: skip
IGNORED = ("seconds", "images_per_second", "data_wait")  # what a clock measured, and nothing else
LONGEST = 900.0  # seconds, for a machine that is busy with other things
_processes = multiprocessing.get_context("forkserver")  # torch is imported once
_processes.set_forkserver_preload(["campfire.training"])


@dataclass
class Child:
    """``campfire.train(output=..., resume="auto")`` in a process; ``steps`` counts the steps that are done."""

    logs: ClassVar[Path]  # a folder for what they write to stderr: not beside the output, whose disk may be full

    output: Path
    flags: dict[str, Any] = field(default_factory=dict)
    most: int = 0  # bytes of a file; 0: any
    clock: int | None = None  # seed of a clock that jumps

    def __post_init__(self) -> None:
        self.steps = _processes.Value("l", 0)
        given = str(self.output), {**SMALL, **self.flags}, self.most, self.clock, self.steps, str(self._log)
        self.process = _processes.Process(target=_train, args=given)
        self.process.start()

    @property
    def log(self) -> str:
        """What was written to stderr by this one, and by those before on the same output."""
        return self._log.read_text(errors="replace")

    @property
    def _log(self) -> Path:
        return self.logs / "-".join(self.output.parts[-2:])

    def wait(self) -> int:
        """Its exit code."""
        self.process.join(LONGEST)
        if self.process.exitcode is None:
            self.process.kill()
            raise TimeoutError(f"{self.output}: still running after {LONGEST:.0f} s")
        return self.process.exitcode

    def kill(self) -> bool:
        """SIGKILL; False where it had ended before."""
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL

    def wait_for_steps(self, steps: int) -> None:
        """Until so many are done, or it has ended."""
        while self.steps.value < steps and self.process.exitcode is None:
            time.sleep(0.005)


def _train(output: str, flags: dict[str, Any], most: int, clock: int | None, steps: Any, log: str) -> None:
    torch.set_num_threads(1)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    _count(steps)
    if clock is not None:
        _cheat(random.Random(clock))
    if most:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    from campfire import cli

    sys.exit(cli.main(argv(flags, output)))


def argv(flags: dict[str, Any], output: str | Path) -> list[str]:
    """The command line of a run."""
    plain = {name: value for name, value in flags.items() if name not in ("data", "model_kwargs")}
    options = [part for name, value in plain.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    kwargs = [f"{name}={value}" for name, value in flags["model_kwargs"].items()]
    return ["train", flags["data"], *options, "--model-kwargs", *kwargs, "--resume", "auto", "--output", str(output)]


def _count(steps: Any) -> None:
    from campfire.training.loop import Training

    step = Training._step

    def counted(self: Training) -> None:
        step(self)
        steps.value = self.at.step

    Training._step = counted


def _cheat(chance: random.Random) -> None:
    """The wall clock jumps by days, back too; the monotonic one stands still, or jumps ahead as after a machine's sleep."""
    wall, monotonic, seen = time.time, time.perf_counter, {"now": time.perf_counter(), "slept": 0.0}

    def jumping() -> float:
        return wall() + chance.choice([0, 86400, -86400, 3e8, -9e8])

    def sleeping() -> float:
        seen["slept"] += chance.choice([0, 0, 0, 3600])
        if chance.random() < 0.5:
            seen["now"] = monotonic() + seen["slept"]
        return seen["now"]

    time.time, time.perf_counter, time.monotonic = jumping, sleeping, sleeping
    time.time_ns = lambda: int(jumping() * 1e9)


# --- what became of it -----------------------------------------------------------------------------------------------


def reached(output: Path) -> int:
    """The step of the newest checkpoint that can be read; 0 where there is none."""
    from campfire.training import fallback

    with contextlib.suppress(ValueError):
        return int(fallback.load(output)[0]["step"])
    return 0


def differences(ours: Path, theirs: Path) -> list[str]:
    """What of two finished runs is not equal bit for bit: weights, the last and the best checkpoint, every number of every epoch."""
    found = []
    one, other = (load_file(run / "model.safetensors") for run in (ours, theirs))
    found += [f"weight {name}" for name in sorted({*one, *other}) if not _same(one.get(name), other.get(name))]
    for name in ("last.pt", "best.pt"):
        states = [torch.load(run / name, weights_only=True) for run in (ours, theirs)]
        for key in ("model", "optimizer", "pruner", "scaler", "ema", "rng", "epoch", "step", "best"):
            found += [] if _same(states[0][key], states[1][key]) else [f"{name} {key}"]
    rows = [_records(run) for run in (ours, theirs)]
    return found + (["metrics.jsonl"] if rows[0] != rows[1] else [])


def _records(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in IGNORED} for line in lines]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.equal(b)
    return bool(a == b)
