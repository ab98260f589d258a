"""One-shot timing of a layer: every kernel and the dense library take turns on random tensors, pass by pass."""

import contextlib
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from campfire.kernels import clocks, timings
from campfire.kernels.base import KERNELS, Prepared
from campfire.kernels.choice import PASSES
from campfire.kernels.formats import to_format
from campfire.kernels.gpu import toolchain
from campfire.kernels.interleaving import interleaved, ratio
from campfire.kernels.library import convolution_backward
from campfire.kernels.reference import Dense
from campfire.kernels.times import Case, Size, Times
from campfire.native.building import CPP
from campfire.native.flavours import flavour, this_cpu
from campfire.packed import LAYOUTS, Packed
from campfire.packed.tile import read_tile

Run = Callable[[], object]
FEW, MANY, SHORT = 5, 15, 2.0  # rounds; and up to how many milliseconds a round is cheap enough for many
WARM = 2  # rounds that count for nothing: fresh memory and idle cores are slow


def measure(case: Case, kernels: Sequence[str], passes: Sequence[str] = PASSES) -> Times:
    """Times by the clock; of a layer like one that was timed on this machine before, those kept of it, unless in doubt."""
    key, found, new = key_of(case), Times(), {}
    missing = [name for name in passes if not _has(timings.find(f"{key} {name}"), kernels)]
    if missing:
        runs = _runs(case, kernels)
        clock = clocks.of_kernels(case.device)
        new = {f"{key} {name}": timed({k: r[name] for k, r in runs.items()}, clock) for name in missing}
        timings.keep(new)
    for name in passes:
        entry = timings.find(f"{key} {name}")
        assert entry is not None
        found.dense[name], found.ratios[name] = entry["dense"], {k: entry["ratios"][k] for k in kernels}
    return found


def converting(size: Size, dtype: torch.dtype) -> float:
    """Milliseconds to convert activations of a size from one memory format to another."""
    key = f"converting {_sizes(size)} {dtype} {setting()}"
    if (entry := timings.find(key)) is None:
        x = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
        lanes, plain = to_format(x, "chwn"), to_format(x, "nhwc")
        runs: dict[str, Run] = {"dense": lambda: to_format(lanes, "nhwc"), "back": lambda: to_format(plain, "chwn")}
        entry = timed(runs)
        timings.keep({key: entry})
    return entry["dense"] * (1 + 1 / entry["ratios"]["back"]) / 2


def key_of(case: Case) -> str:
    """What decides how fast a layer is.

    In steps of 5 %: how many kernels [R, S] live in any tap, and what each candidate does of the dense work.
    """
    packed, conv = case.packed, case.conv
    tile = packed.parts.get("tile")
    shares = {name: KERNELS[name].work(packed, conv) for name in KERNELS if not _why_not(case, name)}
    return " ".join(
        [
            *(_sizes(packed.shape), f"{conv.stride}/{conv.padding}/{conv.dilation}/{conv.groups}", _sizes(case.size)),
            *(packed.layout, "" if tile is None else _sizes(read_tile(tile)), str(case.dtype), _device(case.device)),
            *(f"{name}:{round(20 * share) * 5}" for name, share in {"kernels": _living(packed), **shares}.items()),
            setting(),
        ]
    )


def _device(device: torch.device) -> str:
    """Its kind; of a GPU also its name, and what its kernels are made with."""
    if device.type != "cuda":
        return device.type
    return f"{torch.cuda.get_device_name(device)} CUDA {torch.version.cuda} {toolchain.version()}"


def _living(packed: Packed) -> float:
    """The fraction of kernels that are not dead: it tells whole ones from scattered weights."""
    kernels = LAYOUTS[packed.layout].positions(packed) // math.prod(packed.shape[2:])
    alive = torch.zeros(math.prod(packed.shape[:2]), dtype=torch.bool, device=kernels.device)
    alive[kernels] = True
    return float(alive.float().mean())


def _has(entry: timings.Entry | None, kernels: Sequence[str]) -> bool:
    return entry is not None and set(kernels) <= set(entry["ratios"])


def _why_not(case: Case, kernel: str) -> list[str]:
    return KERNELS[kernel].why_not(case.packed, case.conv, case.dtype, case.device)


def setting() -> str:
    """Machine, instructions, threads and versions."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{this_cpu().name} {capability} {flavour().name} {torch.get_num_threads()} {torch.__version__} {_sources()}"


@functools.cache
def _sources() -> str:
    """A digest of what kernels are made of."""
    digest = hashlib.sha256()
    for file in sorted([*CPP.iterdir(), *Path(__file__).parent.rglob("*.py")]):
        if file.is_file():
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _sizes(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def timed(runs: dict[str, Run], clock: clocks.Clock = clocks.wall) -> timings.Entry:
    """Median milliseconds of ``dense``, and the median over rounds of its time over that of each other run.

    Where the rounds lie far apart there are as many again, twice at most.
    """
    plain = torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False)
    with torch.no_grad(), plain[0], plain[1], _searching():
        first = interleaved(runs, WARM, clock)
        rounds = MANY if sum(times[-1] for times in first.values()) < SHORT else FEW
        times = interleaved(runs, rounds, clock)
        for _ in range(2):
            if _spread(times) > timings.WIDE:
                times = {name: times[name] + more for name, more in interleaved(runs, rounds, clock).items()}
    ordered, others = sorted(times["dense"]), [name for name in runs if name != "dense"]
    ratios = {name: ratio(times, "dense", name) for name in others}
    return {"dense": ordered[len(ordered) // 2], "ratios": ratios, "spread": _spread(times), "when": time.time()}


@contextlib.contextmanager
def _searching() -> Iterator[None]:
    """Meanwhile cuDNN looks for its fastest algorithms: those are to be beaten."""
    cudnn = torch.backends.cudnn
    before, cudnn.benchmark = cudnn.benchmark, True
    try:
        yield
    finally:
        cudnn.benchmark = before


def _spread(times: Mapping[str, Sequence[float]]) -> float:
    """How many times the upper quartile of a ratio is the lower one, where that is worst."""
    found = [1.0]
    for name in times.keys() - {"dense"}:
        ratios = sorted(a / b for a, b in zip(times["dense"], times[name], strict=True))
        quarter = len(ratios) // 4
        found.append(ratios[-1 - quarter] / ratios[quarter])
    return max(found)


def _runs(case: Case, kernels: Sequence[str]) -> dict[str, dict[str, Run]]:
    """The three passes of the dense library and of each kernel, on tensors in the format each of them takes."""
    generator, device = torch.Generator(case.device).manual_seed(0), case.device
    x, dy = (torch.randn(size, generator=generator, device=device).to(case.dtype) for size in (case.size, case.output))
    value = case.packed.parts["value"].to(case.dtype)
    library = _Library(case, value)
    found = {"dense": _passes(library, to_format(x, "nhwc"), to_format(dy, "nhwc"), value)}
    for name in kernels:
        kernel = KERNELS[name]
        ours, back = to_format(x, kernel.format), to_format(dy, kernel.format)
        found[name] = _passes(kernel.prepare(case.packed, case.conv), ours, back, value)
    return found


def _passes(prepared: Prepared, x: Tensor, dy: Tensor, value: Tensor) -> dict[str, Run]:
    size = tuple(x.shape)
    return {
        "forward": lambda: prepared.forward(x, value, None),
        "d_input": lambda: prepared.d_input(dy, value, size),
        "d_values": lambda: prepared.d_values(dy, x),
    }


class _Library(Dense):
    """The dense library as a dense layer calls it: nothing is unpacked, and no values are picked out."""

    def __init__(self, case: Case, value: Tensor):
        super().__init__(case.packed, case.conv)
        self._weight = super().weight(value).contiguous(memory_format=torch.channels_last)

    def weight(self, value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return self._weight

    def d_values(self, dy: Tensor, x: Tensor) -> Tensor:
        return convolution_backward(dy, x, self._weight, self.conv, [False, True, False])[1]
