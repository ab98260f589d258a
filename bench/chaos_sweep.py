"""Two workers on one sweep of real trainings, killed at random, again and again: is every trial recorded once, and right?

    python bench/chaos_sweep.py [--trials 24] [--kills 16] [--seed 0] [--no-compare]

Trials share dense prefixes (``from``), so that there is an order to keep. A killed worker is replaced at once. At the end
every trial is trained again, undisturbed and from its first epoch, and its final weights are compared bit for bit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml

import campfire
from campfire.sweep import Index, read_grid, records
from campfire.training import checkpoint

STRUCTURES = ["ck", "window", "combined", "fine", "vector"]
BASE = {
    "data": {"source": "synthetic:images=128,size=16", "batch_size": 16},
    "model": {"name": "resnet8", "kwargs": {"width": 0.25}},
    "optim": {"epochs": 6},
    "compute": {"threads": 1},
}


def grid(trials: int) -> dict[str, Any]:
    """A dense trial and five sparse ones for each seed."""
    sparse = {"from": "dense", "product": {"structure": STRUCTURES}}
    dense = {"list": [{"structure": "dense"}]}
    return {"base": BASE, "seeds": [*range(trials // 6)], "groups": {"dense": dense, "sparse": sparse}}


def worker(path: Path, folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "campfire", "sweep", str(path), "--output", str(folder), "--no-report", "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def disturb(path: Path, folder: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Work, kill one that has begun a trial, replace it, until every trial has ended."""
    workers, killed, began = [worker(path, folder) for _ in range(2)], 0, time.monotonic()
    while any(w.poll() is None for w in workers):
        time.sleep(chance.uniform(0.5, 8.0))
        victim = chance.randrange(2)
        if killed < kills and workers[victim].poll() is None and workers[victim].pid in begun(folder):
            workers[victim].kill()
            workers[victim].wait()
            killed += 1
            workers[victim] = worker(path, folder)
    return {"kills": killed, "exit_codes": [w.returncode for w in workers], "seconds": round(time.monotonic() - began)}


def begun(folder: Path) -> set[int]:
    """The processes that have begun a trial."""
    try:
        with Index.open(folder) as index:
            return {event.worker for event in index.events()}
    except campfire.CampfireError:  # there is none yet
        return set()


def counted(folder: Path) -> dict[str, Any]:
    """How often each trial was recorded as done."""
    with Index.open(folder) as index:
        done = Counter(e.name for e in index.events() if e.state == "done")
        taken = sum(e.reason == "taken over" for e in index.events())
    found = records(folder)
    return {
        "trials": len(found),
        "states": Counter(r.state for r in found),
        "recorded_once": sum(done[r.name] == 1 for r in found),
        "taken_over": taken,
        "starts": sum(r.starts for r in found),
    }


def compared(path: Path, folder: Path, alone: Path) -> dict[str, int]:
    """Trials whose final weights are those of an undisturbed run, and those whose are not."""
    equal = Counter[bool]()
    for record, trial in zip(records(folder), read_grid(path).trials, strict=True):
        output = campfire.train(trial.config, output=alone / record.name).output
        ours, theirs = (checkpoint.weights(p / "model.safetensors") for p in (record.path, output))
        same = ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
        equal[same] += 1
    return {"equal": equal[True], "wrong": equal[False]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=24, help="a multiple of 6")
    parser.add_argument("--kills", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-compare", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-sweep-") as work:
        path, folder = Path(work) / "grid.yaml", Path(work) / "sweep"
        path.write_text(yaml.safe_dump(grid(args.trials)))
        found = disturb(path, folder, args.kills, random.Random(args.seed)) | counted(folder)
        if not args.no_compare:
            found |= compared(path, folder, Path(work) / "alone")
    print(json.dumps(found))
    return int(found["recorded_once"] != args.trials or found.get("wrong", 0) > 0)


if __name__ == "__main__":
    sys.exit(main())
