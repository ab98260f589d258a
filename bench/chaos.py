"""What machines do to a training, and what becomes of it. `python bench/chaos.py --kills 50 --output chaos.json`

A small network learns the digits, with a checkpoint every 3 steps. It is killed, its disk is full, its last checkpoint is
damaged, its clocks jump, a second process wants its directory; then it goes on with --resume auto. At the end its files must
equal those of a run that nobody disturbed, bit for bit. The last line is one JSON object; 1 where anything was wrong.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chaos_child import SMALL, Child, differences, reached
from chaos_ranks import kill_ranks

INTERVAL = SMALL["recovery_interval"]
ROOMY = 2**26  # bytes, for a disk that is not full any more


class Campaign:
    """A folder, an undisturbed run in it, how long that took, and what was found."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.chance, self.wrong, self.number = folder, random.Random(seed), [], 0
        self.whole, Child.logs = folder / "whole", folder / "logs"
        Child.logs.mkdir()
        assert Child(self.whole).wait() == 0, "the undisturbed run failed"
        began = time.monotonic()
        assert Child(self.fresh()).wait() == 0  # the first one also compiled native code
        self.seconds, self.steps = time.monotonic() - began, reached(self.whole)

    def fresh(self) -> Path:
        self.number += 1
        return self.folder / f"run{self.number}"

    def finished(self, output: Path, what: str, child: Child | None = None) -> bool:
        """Whether it goes on to its end, and the end is the same."""
        child = child or Child(output)
        code = child.wait()
        wrong = f"exit code {code}: {child.log[-300:]}" if code else ", ".join(differences(output, self.whole)[:5])
        return self.complain(what, wrong)

    def complain(self, what: str, wrong: str | None) -> bool:
        if wrong:
            self.wrong.append(f"{what}: {wrong}")
        return not wrong


def kills(c: Campaign, count: int) -> dict[str, Any]:
    """SIGKILL at random instants; a few in the life of each run."""
    tried = survived = runs = 0
    lost = []
    while tried < count:
        output, here, good = c.fresh(), 0, True
        runs += 1
        for _ in range(c.chance.randint(3, 7)):
            child = Child(output)
            if c.chance.random() < 0.75:  # otherwise also while it starts, or ends
                child.wait_for_steps(c.chance.randint(1, c.steps))
                child.process.join(c.chance.random() * 3 * c.seconds / c.steps)
            else:
                child.process.join(c.chance.random() * c.seconds)
            if not child.kill():
                break
            here += 1
            lost.append(max(child.steps.value - reached(output), 0))
            good &= c.complain(f"kill {tried + here}", f"{lost[-1]} steps were lost" if lost[-1] > INTERVAL else None)
        good &= c.finished(output, f"kills {tried + 1} to {tried + here}")
        tried, survived = tried + here, survived + here * good
        shutil.rmtree(output)
    return {"tried": tried, "survived": survived, "runs": runs, "most_steps_lost": max(lost)}


def full_disks(c: Campaign, count: int) -> dict[str, Any]:
    """A disk that fills up at random; it is enlarged, and the run goes on."""
    size, survived, tried = (c.whole / "last.pt").stat().st_size, 0, 0
    how = "tmpfs" if _can_mount(c.folder) else "largest file"
    while tried < count:
        room = int(size * c.chance.uniform(0.2, 4 if how == "tmpfs" else 0.99))
        with _disk(c.fresh(), room, how) as (output, enlarge):
            child = Child(output, most=0 if how == "tmpfs" else room)
            if child.wait() == 0:
                continue
            tried += 1
            said = "No space left on device" if how == "tmpfs" else "File too large"
            good = c.complain(f"disk of {room}", None if said in child.log else f"it said {child.log[-300:]}")
            good &= c.complain(f"disk of {room}", "a traceback" if "Traceback" in child.log else None)
            lost = child.steps.value - reached(output)
            good &= c.complain(f"disk of {room}", f"{lost} steps were lost" if lost > INTERVAL else None)
            enlarge()
            survived += c.finished(output, f"disk of {room}") and good
    return {"tried": tried, "survived": survived, "how": how}


def damaged(c: Campaign, count: int) -> dict[str, Any]:
    """The last checkpoint of a run that was killed in its last epoch is damaged: bits, blocks, ends."""
    base, survived, told = c.fresh(), 0, 0
    child = Child(base)
    child.wait_for_steps(c.steps - 8)
    child.kill()
    for i in range(count):
        output = Path(shutil.copytree(base, c.fresh()))
        data = bytearray((output / "last.pt").read_bytes())
        at = c.chance.randrange(len(data))
        kind = c.chance.choice(["bit", "block", "cut", "empty"])
        if kind == "bit":
            data[at] ^= 1 << c.chance.randrange(8)
        elif kind == "block":
            data[at : at + 4096] = bytes(len(data[at : at + 4096]))
        (output / "last.pt").write_bytes(data[: {"cut": at, "empty": 0}.get(kind, len(data))])
        child = Child(output)
        good = c.finished(output, f"damage {i + 1} ({kind} at {at})", child)
        fell_back = "going on from previous.pt" in child.log
        told += fell_back
        good &= c.complain(
            f"damage {i + 1} ({kind})", None if fell_back or kind in ("bit", "block") else "it did not say so"
        )
        survived += good
        shutil.rmtree(output)
    return {"tried": count, "survived": survived, "fell_back_and_said_so": told}


def clocks(c: Campaign, count: int) -> dict[str, Any]:
    """Clocks that jump by days and hours or stand still; one kill in each run."""
    survived = 0
    for i in range(count):
        output = c.fresh()
        child = Child(output, clock=i)
        child.process.join(c.chance.random() * c.seconds)
        child.kill()
        survived += c.finished(output, f"clock {i + 1}", Child(output, clock=100 + i))
        shutil.rmtree(output)
    return {"tried": count, "survived": survived}


def two_at_once(c: Campaign, count: int) -> dict[str, Any]:
    """A second process on the same directory is refused, and the first does not notice."""
    survived = 0
    for i in range(count):
        output = c.fresh()
        first = Child(output)
        first.wait_for_steps(c.chance.randint(1, 20))
        second = Child(output)
        code, log = second.wait(), second.log
        good = c.complain(f"second {i + 1}", None if code == 2 and "is in use by" in log else f"{code}: {log[-300:]}")
        survived += c.finished(output, f"first {i + 1}", first) and good
    return {"tried": count, "survived": survived}


def unwritable(c: Campaign, count: int) -> dict[str, Any]:
    """Output on a disk that is read-only, or below a file: one line, exit code 1 or 2, and nothing is written."""
    outputs, survived = [c.folder / "file" / "run"] * count, 0
    (c.folder / "file").write_text("not a folder")
    with _read_only(c.fresh()) as mounted:
        outputs[: count - 1] = [mounted] * (count - 1) if mounted else []
        for output in outputs:
            child = Child(output)
            code = child.wait()
            wrong = "a traceback" if "Traceback" in child.log else None if code in (1, 2) else f"exit code {code}"
            survived += c.complain(f"output {output}", wrong)
    return {"tried": len(outputs), "survived": survived}


# --- disks -----------------------------------------------------------------------------------------------------------


def _mount(folder: Path, options: str) -> bool:
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode == 0


def _can_mount(folder: Path) -> bool:
    with _read_only(folder / "probe") as mounted:
        return mounted is not None


@contextmanager
def _disk(folder: Path, room: int, how: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    folder.mkdir()
    try:
        if how == "tmpfs":
            assert _mount(folder, f"size={room}")
        yield folder / "run", lambda: _enlarge(folder, how)
    finally:
        if how == "tmpfs":
            subprocess.run(["umount", folder], check=True)
        shutil.rmtree(folder)


def _enlarge(folder: Path, how: str) -> None:
    if how == "tmpfs":
        subprocess.run(["mount", "-o", f"remount,size={ROOMY}", folder], check=True)


@contextmanager
def _read_only(folder: Path) -> Iterator[Path | None]:
    folder.mkdir(exist_ok=True)
    if not _mount(folder, "size=64k,ro"):
        yield None
        return
    try:
        yield folder / "run"
    finally:
        subprocess.run(["umount", folder], check=True)


def ranks(c: Campaign, count: int) -> dict[str, Any]:
    """SIGKILL of one of two ranks."""
    found = kill_ranks(c.folder, c.chance, count)
    c.wrong += found.pop("wrong")
    return found


CAMPAIGNS: dict[str, Callable[[Campaign, int], dict[str, Any]]] = {
    "kills": kills, "full_disks": full_disks, "damaged": damaged, "clocks": clocks, "two_at_once": two_at_once,
    "unwritable": unwritable, "ranks": ranks,
}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for, print each as it ends, and everything in the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in zip(CAMPAIGNS, (50, 10, 20, 5, 3, 2, 6), strict=True):
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=count, metavar="N", help=f"(default: {count})"
        )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", metavar="FILE", help="also write the JSON there")
    args = parser.parse_args(argv)
    found: dict[str, Any] = {"seed": args.seed}
    with tempfile.TemporaryDirectory(prefix="campfire-chaos-") as folder:
        campaign = Campaign(Path(folder), args.seed)
        found["undisturbed_seconds"] = round(campaign.seconds, 2)
        for name, run in CAMPAIGNS.items():
            if count := getattr(args, name):
                campaign.wrong = []
                found[name] = {**run(campaign, count), "wrong": campaign.wrong}
                print(f"{name}: {json.dumps(found[name])}", file=sys.stderr, flush=True)
                if args.output:
                    Path(args.output).write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found))
    return int(any(one["wrong"] or one["survived"] < one["tried"] for one in found.values() if isinstance(one, dict)))


if __name__ == "__main__":
    sys.exit(main())
