"""How a Triton kernel is run: pixels in a tile, warps, stages; candidates, and the search among them, made once.

No candidate changes a bit of a result: each sums over the same things in the same order.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from campfire.kernels import clocks, timings
from campfire.kernels.dispatch import mode

ROUNDS = 3


class Config(NamedTuple):
    """Pixels (forward, d_input) or boxes (d_values) that a program makes; warps; stages of loads under way."""

    tile: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return "x".join(map(str, self))


CONV = (Config(128, 4, 3), Config(128, 8, 3), Config(64, 4, 4), Config(256, 8, 3), Config(128, 4, 2))
VALUES = (Config(2, 4, 3), Config(4, 8, 3), Config(1, 4, 4), Config(1, 4, 2))
SMALL = Config(32, 4, 2), Config(2, 4, 2)  # for the interpreter: shapes are small there, and programs slow
_found: dict[str, Config] = {}


def for_side(side: int) -> Sequence[Config]:
    """Candidates of the forward pass and d_input for groups of so many results: sums of 128 fill the registers of 4 warps."""
    return CONV if side < 128 else sorted(CONV, key=lambda config: -config.warps)


def best(key: str, run: Callable[[Config], object], candidates: Sequence[Config]) -> Config:
    """The fastest candidate, timed once for each key on this machine; where nothing may be timed, the first that runs.

    Nothing is timed while a CUDA graph is captured, or where ``CAMPFIRE_DISPATCH`` says to time nothing.

    Raises:
        Exception: what the last one failed with, where none runs.
    """
    if found := _found.get(key):
        return found
    if torch.cuda.is_current_stream_capturing():
        return candidates[0]
    if kept := _kept(key, candidates):
        _found[key] = kept
        return kept
    running = _running(run, candidates, stop=mode() != "measure")
    _found[key] = running[0] if len(running) == 1 else _timed(key, run, running)
    return _found[key]


def _running(run: Callable[[Config], object], candidates: Sequence[Config], stop: bool) -> list[Config]:
    """Those that this GPU can run: each is compiled, and needs registers and shared memory."""
    found: list[Config] = []
    failed: Exception | None = None
    for config in candidates:
        try:
            run(config)
            found.append(config)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            failed = error
        if found and stop:
            return found
    if not found and failed is not None:
        raise failed
    return found


def _timed(key: str, run: Callable[[Config], object], running: Sequence[Config]) -> Config:
    times = {config: min(clocks.events(lambda c=config: run(c)) for _ in range(ROUNDS)) for config in running}
    first = times[running[0]]
    ratios = {str(config): first / ms for config, ms in times.items()}
    with contextlib.suppress(OSError):
        timings.keep({key: {"dense": first, "ratios": ratios, "spread": 1.0, "when": time.time()}})
    return min(times, key=times.__getitem__)


def _kept(key: str, candidates: Sequence[Config]) -> Config | None:
    """What another process found."""
    entry = timings.find(key)
    known = {str(config): config for config in candidates}
    if entry is None or not set(entry["ratios"]) <= set(known):
        return None
    return known[max(entry["ratios"], key=entry["ratios"].__getitem__)]


def forget() -> None:
    """Search again; what lies in the file of timings stays."""
    _found.clear()
