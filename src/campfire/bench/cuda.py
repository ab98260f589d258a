"""Timing on a GPU: CUDA events, the host out of the way, and inputs that the second cache has forgotten."""

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from campfire.bench.timing import interleaved
from campfire.errors import UsageError
from campfire.kernels import clocks

Run = Callable[[], Any]
AHEAD = 20_000_000  # clock cycles: whole models without a graph take the host long to launch
MOST = 8  # copies of an input
uncaptured: list[str] = []  # why some candidates were timed without a CUDA graph


def device_of(name: str) -> torch.device:
    """The device of a benchmark, cpu or cuda; on cuda the library searches for its best algorithms.

    Raises:
        UsageError: no GPU is there.
    """
    if name == "cuda" and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise UsageError(
            f"--device cuda wants an NVIDIA GPU, and torch {torch.__version__} ({built}) sees none here; without one, "
            "time the CPU: --device cpu"
        )
    if name == "cuda":
        torch.backends.cudnn.benchmark = True
    return torch.device(name)


def copies(size: int, device: torch.device) -> int:
    """How many inputs of ``size`` bytes take turns, so that none is in the second cache when its turn comes; on a CPU 1."""
    if device.type != "cuda":
        return 1
    cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or 64 << 20
    return max(2, min(MOST, 1 + -(-2 * cache // max(size, 1))))


def turns(candidates: Mapping[str, Sequence[Run]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of one run of every candidate in every round, see `interleaved`; its runs differ in their inputs alone.

    On a GPU a candidate is captured as one CUDA graph, and timed by events; where one cannot be captured, none is.
    """
    whole = {name: _one_by_one(runs) for name, runs in candidates.items()}
    times = interleaved(whole, rounds) if device.type != "cuda" else by_events(_all_graphed(whole), rounds)
    return {name: [x / len(candidates[name]) for x in values] for name, values in times.items()}


def _all_graphed(candidates: Mapping[str, Run]) -> Mapping[str, Run]:
    pool = torch.cuda.graph_pool_handle()  # they run one after another, and nobody reads what they leave
    try:
        return {name: graphed(run, pool) for name, run in candidates.items()}
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        uncaptured.append(f"{', '.join(candidates)}: {str(error).splitlines()[0]}")
        return candidates


def _one_by_one(runs: Sequence[Run]) -> Run:
    return runs[0] if len(runs) == 1 else lambda: [run() for run in runs]


def by_events(candidates: Mapping[str, Run], rounds: int) -> dict[str, list[float]]:
    """`interleaved` on the GPU's clock: what runs there, without the time the host takes to launch it."""
    return interleaved(candidates, rounds, functools.partial(clocks.events, ahead=AHEAD))


def host_milliseconds(run: Run, device: torch.device, rounds: int) -> float | None:
    """What it takes the host to launch a run, median; it must not wait for the device. None on a CPU."""
    if device.type != "cuda":
        return None
    found = []
    for _ in range(rounds):
        torch.cuda.synchronize()
        found.append(clocks.wall(run))
    torch.cuda.synchronize()
    return statistics.median(found)


def graphed(run: Run, pool: Any = None, warm: int = 3) -> Run:
    """What replays a run as one CUDA graph. Its tensors live as long as the function; of a ``pool`` that graphs share, the
    next one writes over them."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        kept = run()

    def replay() -> Any:
        graph.replay()
        return kept

    return replay
