"""bench/chaos.py, a small version of it: what machines do to a training."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
COUNTS = {"kills": 6, "full-disks": 2, "damaged": 4, "clocks": 1, "two-at-once": 1, "unwritable": 2, "ranks": 0}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_is_wrong_and_nothing_is_lost() -> None:
    counts = [part for name, count in COUNTS.items() for part in (f"--{name}", str(count))]
    done = subprocess.run([sys.executable, str(BENCH / "chaos.py"), *counts], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    for name, count in ((name, count) for name, count in COUNTS.items() if count):
        one = found[name.replace("-", "_")]
        assert one["tried"] == one["survived"] >= count - 1, name
        assert one["wrong"] == [], name
    assert found["kills"]["most_steps_lost"] <= 3
