"""The commands of docs/distributed.md that a machine without GPUs can run; in one of them, a process is killed."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import assert_equal_runs

PAGE = Path(__file__).parents[2] / "docs" / "distributed.md"
SMALL = ["--epochs", "6", "--model", "resnet8", "--model-kwargs", "width=0.25", "--img-size", "16"]
ON_TWO = "torchrun --standalone --nproc-per-node 2 "


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith(ON_TWO)]


def start(words: list[str], folder: Path, output: str) -> subprocess.Popen[str]:
    words[words.index("--output") + 1] = output
    command = [sys.executable, "-m", "torch.distributed.run", *words, *SMALL]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def process_of(rank: int, output: str) -> int:
    """The process of a rank of the run that writes there."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words, told = (folder / "cmdline").read_bytes().split(b"\0"), (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if output.encode() in words and f"RANK={rank}".encode() in told:
            return int(folder.name)
    raise LookupError(output)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_process_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    whole, restarted = commands()
    quiet = start(whole, tmp_path, str(tmp_path / "two"))
    out, err = quiet.communicate()
    assert quiet.returncode == 0, err
    assert out.count("resnet8 on digits") == 1
    assert err.count("epoch 1/6: loss") == 1

    run = tmp_path / "restarted"
    process = start(restarted, tmp_path, str(run))
    for rank, epochs in ((1, 1), (0, 3)):
        while (
            len((run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else ()) < epochs
        ):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        os.kill(process_of(rank, str(run)), signal.SIGKILL)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert (run / "log.txt").read_text().count("continuing at step") == 2
    assert json.loads((run / "status.json").read_text())["state"] == "done"
    assert_equal_runs(run, tmp_path / "two")
