"""A compressed model on GPU blocks trains as its masked twin does: autocast, GradScaler, checkpointing, DDP, memory formats.

On a GPU where there is one, else by Triton's interpreter.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gpu_cases import DEVICE, needs_triton
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

from campfire import OneShot, Pruner, SparseConv2d, compress_
from campfire.bench.memory import held
from campfire.kernels.gpu import toolchain
from campfire.nn.base import SparseLayer

pytestmark = [needs_triton, pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")]
RULES = dict.fromkeys(("body", "point"), "hrbp:rows=16,channels=16,inputs=neighbours,guard=none")
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
if DEVICE.type == "cuda":  # TF32, and the library rounds otherwise
    ERROR = {None: 2e-2, torch.bfloat16: 1e-1, torch.float16: 2e-2}
else:
    ERROR = {None: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
WORLD, STEPS = 2, 2
Trained = tuple[nn.Sequential, SGD]


@pytest.fixture(autouse=True)
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """On the CPU too, by the interpreter; dense layers repeat themselves bit for bit."""
    if DEVICE.type == "cpu":
        monkeypatch.setattr(toolchain, "why_not_on", lambda device: [])
    before, torch.backends.cudnn.deterministic = torch.backends.cudnn.deterministic, True
    yield
    torch.backends.cudnn.deterministic = before


def masked() -> tuple[nn.Sequential, SGD, Pruner]:
    """With frozen masks, gradients and momentum."""
    torch.manual_seed(0)
    layers = OrderedDict(
        stem=nn.Conv2d(3, 16, 3, padding=1),
        relu=nn.ReLU(),
        body=nn.Conv2d(16, 32, 3, stride=2, padding=1),
        relu2=nn.ReLU(),
        point=nn.Conv2d(32, 16, 1, bias=False),
        flat=nn.Flatten(),
        head=nn.Linear(96, 3),
    )
    net = nn.Sequential(layers).to(DEVICE, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    pruner = Pruner(net, RULES, OneShot(0, 0.5)).attach(optimizer, 1)
    train((net, optimizer), range(1))
    assert pruner.frozen
    return net, optimizer, pruner


def sparse() -> Trained:
    """The same network compressed, on GPU blocks."""
    net, optimizer, pruner = masked()
    assert compress_(net, pruner, optimizer, kernel="blocks-gpu").compressed == list(RULES)
    assert all(str(m.choice()) == "blocks-gpu" for m in net.modules() if isinstance(m, SparseLayer))
    return net, optimizer


def batch(step: int, part: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Images in channels_last and their classes."""
    generator = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(4, 3, 4, 5, generator=generator).contiguous(memory_format=torch.channels_last)
    return x[part].to(DEVICE), torch.randint(3, (4,), generator=generator)[part].to(DEVICE)


def loss_of(net: nn.Module, step: int, half: torch.dtype | None = None, part: slice = slice(None)) -> Tensor:
    x, labels = batch(step, part)
    with torch.autocast(DEVICE.type, half or torch.bfloat16, enabled=half is not None):
        return nn.functional.cross_entropy(net(x).float(), labels)


def train(trained: Trained, steps: range, half: torch.dtype | None = None, part: slice = slice(None)) -> None:
    net, optimizer = trained
    for step in steps:
        optimizer.zero_grad()
        loss_of(net, step, half, part).backward()
        optimizer.step()


def state(trained: Trained) -> list[Tensor]:
    """Copies of all parameters and momenta."""
    net, optimizer = trained
    return [
        x.detach().clone() for p in net.parameters() for x in (p, *optimizer.state[p].values()) if isinstance(x, Tensor)
    ]


def assert_trained_alike(ours: nn.Module, theirs: nn.Module, limit: float) -> None:
    """Weights that moved, by ``limit`` of the largest one's way, and the same zeros."""
    start, wanted = masked()[0].state_dict(), theirs.state_dict()
    for name, x in ours.state_dict().items():
        way = float((wanted[name] - start[name]).abs().max())
        assert way > 0
        assert float((x - wanted[name]).abs().max()) <= limit * way, name
        assert torch.equal(x == 0, wanted[name] == 0)


@pytest.mark.parametrize("half", [None, *HALVES.values()], ids=["float32", *HALVES])
def test_as_masked_training(half: torch.dtype | None) -> None:
    (net, optimizer, _), ours = masked(), sparse()
    for trained in ((net, optimizer), ours):
        train(trained, range(1, 1 + STEPS), half)
    assert all(p.dtype == torch.float32 for p in ours[0].parameters())
    assert_trained_alike(ours[0], net, ERROR[half])


@pytest.mark.filterwarnings("ignore:invalid value")  # of NumPy, which the interpreter multiplies with
def test_an_overflow_in_float16_skips_the_step_and_nothing_else() -> None:
    """The scale is too large at first: gradients that GPU blocks make in float16 are infinite."""
    (net, optimizer, _), ours = masked(), sparse()
    scaler = torch.amp.GradScaler(DEVICE.type, init_scale=2.0**60, backoff_factor=2.0**-52)
    before = state(ours)
    for step in range(1, 2 + STEPS):
        ours[1].zero_grad()
        scaler.scale(loss_of(ours[0], step, torch.float16)).backward()
        if step == 1:
            assert not ours[0].body.value.grad.isfinite().all()  # pyright: ignore
        scaler.step(ours[1])
        scaler.update()
        if step == 1:
            assert scaler.get_scale() == 256
            assert all(torch.equal(a, b) for a, b in zip(before, state(ours), strict=True))
    train((net, optimizer), range(2, 2 + STEPS), torch.float16)
    assert_trained_alike(ours[0], net, ERROR[torch.float16])


class Checkpointed(nn.Module):
    """A network whose activations are made again in the backward pass."""

    def __init__(self, net: nn.Module, reentrant: bool):
        super().__init__()
        self.net, self.reentrant = net, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x.requires_grad_(), use_reentrant=self.reentrant)  # pyright: ignore


@pytest.mark.parametrize(("reentrant", "half"), [(False, None), (True, None), (True, torch.bfloat16)])
def test_activations_that_are_made_again_change_no_bit(reentrant: bool, half: torch.dtype | None) -> None:
    net, _ = sparse()
    found = []
    for module in (net, Checkpointed(net, reentrant)):
        net.zero_grad()
        loss_of(module, 1, half).backward()
        found.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_channels_last_in_and_out_and_anything_in() -> None:
    net, _ = sparse()
    seen: list[Tensor] = []
    for module in net.modules():
        if isinstance(module, SparseConv2d):
            module.register_forward_hook(lambda module, given, y: seen.append(y))
    x, _ = batch(1)
    last, found = x.clone(memory_format=torch.preserve_format).requires_grad_(), []
    plain = x.contiguous().requires_grad_()
    for given in (last, plain):
        net.zero_grad()
        net(given).square().sum().backward()
        found.append([given.grad, *(p.grad for p in net.parameters())])
    assert len(seen) == 2 * len(RULES)
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in [*seen, last.grad])
    limit = 1e-2 if DEVICE.type == "cuda" else 1e-5
    for a, b in zip(*found, strict=True):
        assert float((a - b).abs().max()) <= limit * float(b.abs().max())


def test_compiled_without_a_break() -> None:
    net, _ = sparse()
    found = []
    for module in (net, torch.compile(net, fullgraph=True, backend="aot_eager")):
        net.zero_grad()
        loss_of(module, 1).backward()  # pyright: ignore[reportArgumentType]
        found.append([p.grad for p in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_memory_is_freed_for_every_dead_weight() -> None:
    """Of weights, gradients and momentum; counted from tensors."""
    net, optimizer, pruner = masked()
    loss_of(net, 1).backward()
    dead = sum(int((~mask.keep).sum()) for mask in pruner.masks.values())
    assert dead == 16 * 16 * 9 + 16 * 16
    before = held(net, optimizer)
    compress_(net, pruner, optimizer, kernel="blocks-gpu")
    after = held(net, optimizer)
    for kind in ("weights", "gradients", "optimizer"):
        assert before[kind] - after[kind] == 4 * dead, kind


# --- two processes --------------------------------------------------------------------------------------------------------


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    if DEVICE.type == "cpu":
        toolchain.why_not_on = lambda device: []
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    net, optimizer = sparse()
    train((DistributedDataParallel(net), optimizer), range(1, 1 + STEPS), part=slice(2 * rank, 2 * rank + 2))  # pyright: ignore
    torch.save({k: v.cpu() for k, v in net.state_dict().items()}, f"{folder}/{rank}.pt")
    dist.barrier()  # nobody hangs up while the other still listens
    dist.destroy_process_group()


def test_two_processes_train_as_one_on_all_images(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(work, (str(tmp_path),), WORLD, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD))
    assert all(torch.equal(x, second[name]) for name, x in first.items())
    net, optimizer = sparse()
    train((net, optimizer), range(1, 1 + STEPS))
    theirs = copy.deepcopy(net)
    theirs.load_state_dict({name: x.to(DEVICE) for name, x in first.items()})
    assert_trained_alike(theirs, net, ERROR[None])
