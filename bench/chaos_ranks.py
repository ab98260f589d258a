"""Several processes that train together, one of which is killed: torchrun starts them again, from the last checkpoint."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from chaos_child import LONGEST, SMALL, argv, differences

WORLD, RESTARTS = 2, 20


class Together:
    """``torchrun ... -m campfire train`` on this machine."""

    def __init__(self, output: Path):
        self.output, self.log = output, output.with_name(f"{output.name}.log")
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}"]
        launcher += [f"--max-restarts={RESTARTS}", "--monitor-interval=0.2", "-m", "campfire"]
        with self.log.open("a") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen([*launcher, *argv(SMALL, output)], stdout=log, stderr=log, env=environment)

    def ranks(self) -> list[int]:
        """The processes that train."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"campfire" in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def epochs(self) -> int:
        """How many are recorded."""
        records = self.output / "metrics.jsonl"
        return len(records.read_text().splitlines()) if records.exists() else 0

    def kill_one(self, chance: random.Random, epochs: int, pause: float) -> bool:
        """SIGKILL of a rank, after so many epochs and a pause (seconds); False where the run ended before."""
        while self.process.poll() is None and (len(self.ranks()) < WORLD or self.epochs() < epochs):
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(pause)
        ranks = self.ranks()
        if self.process.poll() is not None or not ranks:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(ranks), signal.SIGKILL)
        return True

    def wait(self) -> int:
        """The launcher's exit code."""
        try:
            return self.process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            return self.process.wait()


def kill_ranks(folder: Path, chance: random.Random, count: int) -> dict[str, Any]:
    """``count`` kills, three in the life of each run; the ends are compared with those of an undisturbed run of as many ranks."""
    whole = Together(folder / "together")
    if code := whole.wait():
        return {"tried": 0, "survived": 0, "wrong": [f"undisturbed: exit code {code}: {whole.log.read_text()[-500:]}"]}
    tried, survived, wrong, runs = 0, 0, [], 0
    while tried < count:
        runs, here = runs + 1, 0
        run = Together(folder / f"together{runs}")
        for epochs in sorted(chance.sample(range(SMALL["epochs"]), min(3, count - tried))):
            here += run.kill_one(chance, epochs, chance.random())
            time.sleep(1)  # until the launcher has noticed
        code = run.wait()
        different = ", ".join(differences(run.output, whole.output)[:5]) if code == 0 else ""
        reason = f"exit code {code}: {run.log.read_text()[-500:]}" if code else different
        wrong += [f"ranks, run {runs}: {reason}"] * bool(reason)
        tried, survived = tried + here, survived + here * (not reason)
    return {"tried": tried, "survived": survived, "world": WORLD, "runs": runs, "wrong": wrong}
