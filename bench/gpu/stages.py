"""What is run on a GPU: each stage returns plain values, and has a limit in seconds.

``dry``: tiny shapes on the CPU, to try the script itself.
"""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from limits import TimeUp
from targets import roofline
from torch.nn.functional import cross_entropy

from campfire import Era, Pruner
from campfire.bench.cuda import by_events, host_milliseconds
from campfire.bench.kernels import PASSES, bench_kernels
from campfire.bench.layers import layers_of
from campfire.bench.masks import bench_masks
from campfire.bench.memory import saved
from campfire.bench.model import bench_model
from campfire.bench.nets import dense_net, images
from campfire.kernels import KERNELS, Conv
from campfire.kernels.interleaving import interleaved
from campfire.mask import Mask
from campfire.packed import pack

HERE = Path(__file__).parent
ON_GPU = "tests/kernels/gpu/test_on_gpu.py"
TESTS = (
    ["tests/native/test_gpu_steps.py", "tests/native/test_gpu_masks.py"],
    *(["tests/kernels/gpu/" + f"test_gpu_{name}.py"] for name in ("blocks", "layers", "training")),
    ["tests/kernels/gpu/test_two_four.py", "tests/kernels/gpu/test_gpu_code.py"],
    *([ON_GPU, "-k", which] for which in ("dtype0", "dtype1", "dtype2", "not dtype")),
)
BLOCKS = "hrbp:rows=64,channels=64,order=none,inputs=neighbours,guard=none"


def at_most(seconds: float) -> Callable[[Any], Any]:
    """A stage that is broken off after so many seconds."""

    def limit(stage: Any) -> Any:
        stage.limit = seconds
        return stage

    return limit


@at_most(130)
def correctness(dry: bool) -> dict[str, Any]:
    """The tests that run on whatever device there is: all passes against float64 in bf16, fp16 and tf32, masks, steps.

    Several processes share the GPU, for most of the time goes into compiling kernels.
    """
    folder = Path(tempfile.mkdtemp())
    runs = [_pytest(args, folder / f"{i}.xml") for i, args in enumerate(TESTS[:1] if dry else TESTS)]
    try:
        said = [run.communicate()[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    found = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for report in folder.glob("*.xml"):
        suite = next(ElementTree.parse(report).iter("testsuite")).attrib
        found = {kind: number + int(suite.get(kind, 0)) for kind, number in found.items()}
    if any(run.returncode for run in runs):
        failed = "\n".join(text[-3000:] for run, text in zip(runs, said, strict=True) if run.returncode)
        raise RuntimeError(f"tests failed: {found}\n{failed}")
    return found


def _pytest(args: Sequence[str], report: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, str(HERE / "run.py"), "--pytest", "-q", "--maxfail=20", "--tb=short"]
    command += [f"--junitxml={report}", "-o", "addopts=", "-p", "no:cacheprovider", *args]
    env = {**os.environ, "CAMPFIRE_DISPATCH": "model"}  # no search among configurations, where a test does not want it
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


@at_most(60)
def sanitizer(dry: bool) -> dict[str, Any]:
    """A small case of every kernel under compute-sanitizer's memcheck, where the tool exists."""
    places = ["/usr/local/cuda/bin", *map(str, Path("/usr/local").glob("cuda-*/bin"))]
    tool = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
    if tool is None and not dry:
        raise FileNotFoundError("compute-sanitizer is not here")
    checked = [tool, "--tool", "memcheck", "--error-exitcode", "9"] if tool and not dry else []
    command = [*checked, sys.executable, str(HERE / "run.py"), "--small"]
    env = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "CAMPFIRE_DISPATCH": "model"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return {"tool": tool, "says": re.findall(r"ERROR SUMMARY.*", done.stdout + done.stderr)[-1:]}


def small() -> None:
    """One call of every kernel."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = torch.nn.Sequential(torch.nn.Conv2d(64, 64, 3, padding=1), torch.nn.Conv2d(64, 128, 1, stride=2)).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(net, {torch.nn.Conv2d: "ck"}, Era(0, 1, 0.7)).attach(optimizer, 2)
    for _ in range(3):
        optimizer.zero_grad()
        net(torch.randn(2, 64, 9, 7, device=device)).square().mean().backward()
        optimizer.step()
    pruner.verify()
    bench_kernels(["block-64x64"], 0.5, "resnet18", [1], 1, 32, layers=_first, device=device.type)


def _first(layer: Any) -> bool:
    return layer.shape[:2] == (128, 64) and layer.kind == "3x3"


@at_most(170)
def kernels(dry: bool) -> list[dict[str, Any]]:
    """Three passes of the 3x3 layers of stages 3 to 5, each shape once, and how near they come to the limits."""
    device, batch, size = ("cpu", 1, 32) if dry else ("cuda", 256, 224)
    dtype, rounds = ("float32", 3) if dry else ("bfloat16", 15)
    found: dict[str, dict[str, Any]] = {}
    try:
        for model in ("resnet18",) if dry else ("resnet18", "resnet50"):
            for layer in filter(_small if dry else _large, layers_of(model, size)):
                for sparsity in (0.7, 0.8):
                    names = ["block-64x64", "block-128x32"]
                    only: Callable[[Any], bool] = partial(_same, str(layer))
                    rows = bench_kernels(names, sparsity, model, [batch], rounds, size, 0, dtype, device, only)
                    for row in rows["layers"]:
                        key = f"{row['layer']} {row['structure']} {sparsity}"
                        found.setdefault(key, _near({**row, "model": model, "sparsity": sparsity}, dry))
    except TimeUp as late:
        late.found = list(found.values())
        raise
    return list(found.values())


def _large(layer: Any) -> bool:
    return layer.kind == "3x3" and layer.shape[0] >= 128


def _small(layer: Any) -> bool:
    return layer.kind == "3x3" and layer.shape[:2] == (128, 128)


def _same(name: str, layer: Any) -> bool:
    return str(layer) == name


def _near(row: dict[str, Any], dry: bool) -> dict[str, Any]:
    gpu = "" if dry else torch.cuda.get_device_name()
    return {**row, "roofline": {p: roofline(row, p, gpu) for p in PASSES}}


@at_most(20)
def launches(dry: bool) -> dict[str, Any]:
    """Microseconds that it takes the host to launch a pass of a small layer, ours and the library's, without a graph."""
    device = torch.device("cpu" if dry else "cuda")
    keep = torch.zeros(128, 128, 3, 3, dtype=torch.bool)
    keep[:64, :64] = True
    packed = pack(torch.randn(128, 128, 3, 3, device=device), Mask(keep.to(device)), "unit", tile=(64, 64, 3, 3))
    x, value = torch.randn(1 if dry else 64, 128, 7, 7, device=device), packed.parts["value"]
    x, conv = x.contiguous(memory_format=torch.channels_last), Conv(1, 1)
    sides = {"ours": KERNELS["blocks-gpu"].prepare(packed, conv), "library": KERNELS["reference"].prepare(packed, conv)}
    found: dict[str, Any] = {}
    with torch.no_grad():
        for side, passes in sides.items():
            y = passes.forward(x, value, None)
            runs: dict[str, Callable[[], object]] = {
                "forward": partial(passes.forward, x, value, None),
                "d_input": partial(passes.d_input, y, value, tuple(x.shape)),
                "d_values": partial(passes.d_values, y, x),
            }
            for run in runs.values():
                run()
            rounds = 1 if dry else 101
            found[side] = {name: host_milliseconds(run, device, rounds) for name, run in runs.items()}
    return {side: {name: ms and 1e3 * ms for name, ms in times.items()} for side, times in found.items()}


@at_most(40)
def masks(dry: bool) -> dict[str, Any]:
    """Updates of all convolutions and one re-application."""
    return bench_masks("resnet8" if dry else "resnet50", 0.7, 1 if dry else 21, device="cpu" if dry else "cuda")


@at_most(110)
def model_resnet18(dry: bool) -> dict[str, Any]:
    """Inference and training steps of ResNet-18 at 80 %, CUDA graphs on both sides."""
    return _model("resnet8" if dry else "resnet18", 256, dry)


@at_most(90)
def model_vgg16(dry: bool) -> dict[str, Any]:
    """The same of VGG-16, whose activations are larger."""
    return _model("resnet8" if dry else "vgg16_bn", 64, dry)


def _model(name: str, batch: int, dry: bool) -> dict[str, Any]:
    blocks = "hrbp:rows=16,channels=4,order=none,guard=none" if dry else BLOCKS
    sizes: tuple[Any, ...] = ([2], 1, 32) if dry else ([batch], 9, 224)
    return bench_model(name, blocks, 0.8, *sizes, memory=not dry, device="cpu" if dry else "cuda")


@at_most(60)
def overhead(dry: bool) -> dict[str, Any]:
    """What the pruner adds to a bfloat16 training step of ResNet-50 whose masks change in every step (CK)."""
    name, batch, size, rounds, steps = ("resnet8", 2, 32, 2, 2) if dry else ("resnet50", 256, 224, 15, 4)
    device = torch.device("cpu" if dry else "cuda")
    x, labels = images(batch, size).to(device), torch.randint(1000, (batch,), device=device)
    runs: dict[str, Callable[[], None]] = {}
    for kind in ("without", "with"):
        net = dense_net(name, device=device)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
        if kind == "with":
            Pruner(net, "ck", Era(0, 3.99, 0.7, by="step")).attach(optimizer, (rounds + 3) * steps // 2)
        runs[kind] = _steps(net, optimizer, x, labels, steps)
    times = (interleaved if dry else by_events)(runs, rounds)
    more = [(a - b) / b for a, b in zip(times["with"], times["without"], strict=True)]
    return {**{f"{k}_ms": statistics.median(v) / steps for k, v in times.items()}, "share": statistics.median(more)}


def _steps(
    net: torch.nn.Module, optimizer: Any, x: torch.Tensor, labels: torch.Tensor, steps: int
) -> Callable[[], None]:
    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(x.device.type, torch.bfloat16):
                loss = cross_entropy(net(x).float(), labels)
            loss.backward()
            optimizer.step()

    return run


@at_most(20)
def memory(dry: bool) -> dict[str, Any]:
    """Weights, gradients and optimizer state before and after compression."""
    blocks = "hrbp:rows=16,channels=4,order=none,guard=none" if dry else BLOCKS
    return saved("resnet8" if dry else "resnet50", blocks, 0.8, torch.device("cpu" if dry else "cuda"))


STAGES = (correctness, masks, kernels, overhead, model_resnet18, memory, launches, sanitizer, model_vgg16)
