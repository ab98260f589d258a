"""What is run on a GPU: each stage returns plain values. ``dry``: tiny shapes on the CPU, to try the script itself."""

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch
from targets import roofline
from torch.nn.functional import cross_entropy

from campfire import Era, Pruner
from campfire.bench.cuda import by_events
from campfire.bench.kernels import PASSES, bench_kernels
from campfire.bench.masks import bench_masks
from campfire.bench.memory import saved
from campfire.bench.model import bench_model
from campfire.bench.nets import dense_net, images
from campfire.kernels.interleaving import interleaved

HERE = Path(__file__).parent
TESTS = ("tests/native/test_gpu_masks.py", "tests/native/test_gpu_steps.py", "tests/kernels/gpu")
BLOCKS = "hrbp:rows=64,channels=64,order=none,inputs=neighbours,guard=none"


def correctness(dry: bool, seconds: float) -> dict[str, Any]:
    """The tests that run on whatever device there is: all passes against float64 in bf16, fp16 and tf32, masks, steps."""
    report = Path(tempfile.mkdtemp()) / "tests.xml"
    command = [sys.executable, str(HERE / "run.py"), "--pytest", "-q", "-x", "--tb=short", f"--junitxml={report}"]
    command += [
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        *(TESTS[1:2] if dry else [t for t in TESTS if Path(t).exists()]),
    ]
    done = subprocess.run(command, timeout=min(seconds, 200), check=False, capture_output=True, text=True)
    suite = next(ElementTree.parse(report).iter("testsuite")).attrib if report.exists() else {}
    found = {kind: int(suite.get(kind, 0)) for kind in ("tests", "failures", "errors", "skipped")}
    if done.returncode:
        raise RuntimeError(f"tests failed: {found}\n{done.stdout[-3000:]}{done.stderr[-2000:]}")
    return found


def sanitizer(dry: bool, seconds: float) -> dict[str, Any]:
    """A small case of every kernel under compute-sanitizer's memcheck, where the tool exists."""
    places = ["/usr/local/cuda/bin", *map(str, Path("/usr/local").glob("cuda-*/bin"))]
    tool = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *places]))
    if tool is None and not dry:
        raise FileNotFoundError("compute-sanitizer is not here")
    checked = [tool, "--tool", "memcheck", "--error-exitcode", "9"] if tool and not dry else []
    command = [*checked, sys.executable, str(HERE / "run.py"), "--small"]
    env = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1", "CAMPFIRE_DISPATCH": "model"}
    done = subprocess.run(command, timeout=min(seconds, 90), check=False, capture_output=True, text=True, env=env)
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


def kernels(dry: bool, seconds: float) -> list[dict[str, Any]]:
    """Three passes of the 3x3 layers of stages 3 to 5, each shape once, and how near they come to the limits."""
    device, batch, size = ("cpu", 1, 32) if dry else ("cuda", 256, 224)
    dtype, rounds = ("float32", 3) if dry else ("bfloat16", 15)
    found: list[dict[str, Any]] = []
    for model in ("resnet18",) if dry else ("resnet18", "resnet50"):
        seen = {row["layer"] for row in found}

        def wanted(layer: Any, seen: set[str] = seen) -> bool:
            large = layer.kind == "3x3" and layer.shape[0] >= 128 and (not dry or layer.shape[:2] == (128, 128))
            return large and str(layer) not in seen

        for sparsity in (0.7, 0.8):
            names = ["block-64x64", "block-128x32"]
            rows = bench_kernels(names, sparsity, model, [batch], rounds, size, 0, dtype, device, wanted)
            found += [{**row, "model": model, "sparsity": sparsity} for row in rows["layers"]]
    gpu = "" if dry else torch.cuda.get_device_name()
    return [{**row, "roofline": {p: roofline(row, p, gpu) for p in PASSES}} for row in found]


def masks(dry: bool, seconds: float) -> dict[str, Any]:
    """Updates of all convolutions and one re-application."""
    return bench_masks("resnet8" if dry else "resnet50", 0.7, 1 if dry else 21, device="cpu" if dry else "cuda")


def model_resnet18(dry: bool, seconds: float) -> dict[str, Any]:
    """Inference and training steps of ResNet-18 at 80 %, CUDA graphs on both sides."""
    return _model("resnet8" if dry else "resnet18", 256, dry)


def model_vgg16(dry: bool, seconds: float) -> dict[str, Any]:
    """The same of VGG-16, whose activations are larger."""
    return _model("resnet8" if dry else "vgg16_bn", 64, dry)


def _model(name: str, batch: int, dry: bool) -> dict[str, Any]:
    blocks = "hrbp:rows=16,channels=4,order=none,guard=none" if dry else BLOCKS
    sizes: tuple[Any, ...] = ([2], 1, 32) if dry else ([batch], 9, 224)
    return bench_model(name, blocks, 0.8, *sizes, memory=not dry, device="cpu" if dry else "cuda")


def overhead(dry: bool, seconds: float) -> dict[str, Any]:
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


def memory(dry: bool, seconds: float) -> dict[str, Any]:
    """Weights, gradients and optimizer state before and after compression."""
    blocks = "hrbp:rows=16,channels=4,order=none,guard=none" if dry else BLOCKS
    return saved("resnet8" if dry else "resnet50", blocks, 0.8, torch.device("cpu" if dry else "cuda"))


STAGES = (correctness, masks, kernels, overhead, model_resnet18, memory, model_vgg16, sanitizer)
