"""Training under masks where they are made by Triton: the same masks, no waiting, and compression behind it."""

import contextlib
import warnings

import pytest
import torch
from gpu_device import DEVICE, by_triton
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from campfire import Era, OneShot, Pruner, compress_
from campfire.bench.memory import saved
from campfire.errors import CampfireError, LostOutputs
from campfire.native.gpu import masks as gpu
from campfire.pruner import together
from campfire.selection import unhurried
from campfire.structures import named

pytest.importorskip("triton")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def network(last: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 6, 1), nn.Flatten())
    return net.to(memory_format=torch.channels_last) if last else net  # pyright: ignore[reportCallIssue]


def trained(device: torch.device, rules: object, last: bool, steps: int = 4) -> tuple[nn.Module, Pruner]:
    """After some steps, the last of them frozen."""
    net = network(last).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(net, rules, Era(0, 1, 0.6, by="step")).attach(optimizer, steps - 2)  # pyright: ignore
    x = torch.linspace(-1, 1, 2 * 3 * 64).view(2, 3, 8, 8).to(device)
    for _ in range(steps):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    assert pruner.frozen
    return net, pruner


@pytest.mark.parametrize("last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("name", ["ck", "window"])
def test_training_makes_the_masks_of_the_cpu(name: str, last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = trained(torch.device("cpu"), {nn.Conv2d: name}, last)[1].masks
    calls: list[int] = []
    whole = gpu.select
    monkeypatch.setattr(gpu, "select", lambda parts, *more: calls.append(len(parts)) or whole(parts, *more))
    with by_triton() as device:
        net, pruner = trained(device, {nn.Conv2d: name}, last)
    assert calls.count(3 if name == "ck" else 1) >= 2  # all layers in one go; of windows those that follow ck
    for key, mask in pruner.masks.items():
        assert torch.equal(mask.keep.cpu(), wanted[key].keep)
        weight = dict(net.named_parameters())[f"{key}.weight"]
        assert bool((weight[~mask.keep.view(weight.shape)] == 0).all())


def test_nan_is_told_though_nobody_waits() -> None:
    with by_triton() as device:
        net = network().to(device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        pruner = Pruner(net, {nn.Conv2d: "ck"}, Era(0, 1, 0.6, by="step")).attach(optimizer, 2)
        with torch.no_grad():
            net[2].weight.fill_(torch.nan)  # pyright: ignore

        def train() -> None:
            for _ in range(3):
                optimizer.step()
            pruner.verify()

        with pytest.raises(CampfireError, match="NaN"):
            train()


def test_lost_outputs_are_told() -> None:
    with by_triton() as device:
        net = network().to(device)
        with torch.no_grad():
            net[2].weight[0] = 0  # pyright: ignore
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        pruner = Pruner(net, {nn.Conv2d: "ck"}, Era(0, 1, 0.6, by="step")).attach(optimizer, 1)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            for _ in range(2):
                optimizer.step()
            pruner.verify()
        assert any(issubclass(x.category, LostOutputs) and "2 (1 of 12)" in str(x.message) for x in told)


class Hasty(TorchDispatchMode):
    """No operator whose result the host would have to wait for."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "isin", "bincount")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.WAITS), f"{func} waits"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["ck", "fine", "window", "filter", "hrbp:rows=4,channels=2", "hrbp:guard=both"])
def test_no_update_waits_for_the_device(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    score = torch.rand(64, 12, 3, 3, generator=generator)
    structure, everything = named(name), torch.ones(score.shape, dtype=torch.bool)
    plan, counts = structure.plan(score, 0.6), [structure.count(tuple(score.shape), x) for x in (0.4, 0.6)]
    before = structure.project(score, counts[0], plan, everything)
    wanted = structure.project(score, counts[1], plan, before)
    with by_triton() as device, unhurried() as refused:
        there = {key: part.to(device) for key, part in plan.items()}
        with Hasty():
            keep = structure.project(score.to(device), counts[1], there, before.to(device))
    assert torch.equal(keep.cpu(), wanted)
    assert not any(bool(x.any()) for x in refused)


@pytest.mark.gpu
@needs_gpu
def test_a_step_never_waits_for_the_device() -> None:
    net = network(last=True).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(net, {nn.Conv2d: "ck"}, Era(0, 9, 0.6, by="step")).attach(optimizer, 2)
    x = torch.randn(2, 3, 8, 8, device=DEVICE)

    def step() -> None:
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()

    for _ in range(3):
        step()  # compiles
    before = pruner.sparsity
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(6):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert pruner.sparsity > before


@pytest.mark.gpu
@needs_gpu
def test_the_device_really_holds_less() -> None:
    found = saved("resnet18", "hrbp:rows=64,channels=64,order=none,inputs=neighbours,guard=none", 0.8, DEVICE)
    freed = found["before"]["allocated"] - found["after"]["allocated"]
    counted = sum(found["before"][k] - found["after"][k] for k in ("weights", "gradients", "optimizer"))
    assert freed >= 0.8 * counted


class Checkpointed(nn.Module):
    """A part whose activations are made again in the backward pass."""

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.body, x, use_reentrant=False)  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "autocast"])
def test_compressed_training_with_checkpointing_in_channels_last(half: bool) -> None:
    """On a GPU where there is one, else the same path on the CPU."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1))
    net = nn.Sequential(Checkpointed(body), nn.Flatten(), nn.Linear(64 * 6 * 5, 3))
    net.to(DEVICE, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x = torch.randn(2, 64, 6, 5, device=DEVICE).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    rules = {nn.Conv2d: "hrbp:rows=32,channels=32,order=none,inputs=neighbours,guard=none"}
    pruner = Pruner(net, rules, OneShot(0, 0.5)).attach(optimizer, 1)
    cast = torch.autocast(DEVICE.type, torch.bfloat16) if half else contextlib.nullcontext()

    def gradients() -> list[torch.Tensor]:
        optimizer.zero_grad()
        with cast:
            loss = net(x).float().square().mean()
        loss.backward()
        return [x.grad] + [p.grad.clone() for p in net.parameters() if p.grad is not None]  # pyright: ignore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostOutputs)
        gradients()
        optimizer.step()
    x.requires_grad_(True)
    dense = gradients()
    masks = {name: mask.keep for name, mask in pruner.masks.items()}
    x.grad = None
    report = compress_(net, pruner, optimizer)
    assert len(report.compressed) == len(masks) == 2
    sparse = gradients()
    error = 0.02 if half or DEVICE.type == "cuda" else 1e-5
    assert torch.allclose(dense[0], sparse[0], atol=error * float(dense[0].abs().max()))
    assert sum(g.numel() for g in sparse) < sum(g.numel() for g in dense)


def test_other_scores_and_structures_go_layer_by_layer() -> None:
    with by_triton() as device:
        net = network().to(device)
        for rules, score in (("hrbp:rows=2,channels=2", "magnitude"), ("kernel", "magnitude"), ("ck", "random")):
            pruner = Pruner(net, {nn.Conv2d: rules}, Era(0, 1, 0.5), score=score)
            layers = list(pruner.layers.values())
            for layer in layers:
                layer.requested = 0.5
            asked = [(layer, layer.structure) for layer in layers]
            found = together.masks_together(asked)
            assert set(found) == ({"3"} if rules == "kernel" else set())  # a kernel of one weight is a run of one
