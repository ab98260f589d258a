"""Clocks: milliseconds of one run, on the device that it runs on."""

import time
from collections.abc import Callable

import torch

Run = Callable[[], object]
Clock = Callable[[Run], float]
AHEAD = 1_000_000  # clock cycles that a GPU sleeps, so that the host has launched a run before it starts


def wall(run: Run) -> float:
    """By the host's clock.

    >>> wall(lambda: None) < 1000
    True
    """
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def events(run: Run, ahead: int = AHEAD) -> float:
    """By CUDA events on the current stream: what the GPU takes, without what launching takes the host.

    ``ahead``: cycles that the GPU sleeps first; what takes the host longer to launch wants more.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(ahead)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def finished(run: Run) -> float:
    """By the host's clock, until the GPU is done: with what launching takes."""
    torch.cuda.synchronize()

    def whole() -> None:
        run()
        torch.cuda.synchronize()

    return wall(whole)


def of_kernels(device: torch.device) -> Clock:
    """The clock for single kernels on a device."""
    return events if device.type == "cuda" else wall


def of_models(device: torch.device) -> Clock:
    """The clock for whole models on a device."""
    return finished if device.type == "cuda" else wall
