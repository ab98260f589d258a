"""Natively or by torch, the dead are zero, bit for bit alike; and what moved is looked up anew."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from campfire import Pruner
from campfire.native import library
from campfire.pruner.zeroing import Multiplication
from campfire.schedules import OneShot

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")


class Mixed(nn.Module):
    """Kernels of every size, a linear layer, and one layer of doubles."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 8, 3), nn.Conv2d(8, 130, 1), nn.Conv2d(130, 24, 3)
        self.d, self.e = nn.Conv2d(24, 8, 3).double(), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.e(self.d(self.c(self.b(self.a(x))).double()).mean((2, 3)).float())


def trained(setting: Callable[[nn.Module], nn.Module], kind: type, mode: str) -> tuple[nn.Module, list[Tensor]]:
    """The model after some steps with growing masks, and its optimizer's state."""
    torch.manual_seed(0)
    model = setting(Mixed())
    optimizer = kind(model.parameters(), lr=1e-2, **({"momentum": 0.9} if kind is torch.optim.SGD else {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAMPFIRE_NATIVE", mode)
        pruner = Pruner(model, {nn.Conv2d: "fine", nn.Linear: "fine"}, OneShot(1, 0.6))
        pruner.attach(optimizer, steps_per_epoch=2)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(2, 4, 9, 9)).square().sum().backward()
            optimizer.step()
    assert int((model.c.weight == 0).sum()) == round(0.6 * model.c.weight.numel())
    return model, [v for s in optimizer.state.values() for v in s.values() if isinstance(v, Tensor)]


SETTINGS = {
    "contiguous": lambda m: m,
    "channels last": lambda m: m.to(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("setting", ["contiguous", "channels last"])
def test_both_ways_agree_bit_for_bit(setting: str, kind: type) -> None:
    if library("masks") is None:
        pytest.skip("no compiler")
    natively, by_torch = (trained(SETTINGS[setting], kind, mode) for mode in ("require", "0"))
    pairs = zip([*natively[0].parameters(), *natively[1]], [*by_torch[0].parameters(), *by_torch[1]], strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def pruned(model: nn.Module) -> tuple[Pruner, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    pruner = Pruner(model, {nn.Conv2d: "fine"}, OneShot(0, 0.5)).attach(optimizer, steps_per_epoch=1)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    return pruner, optimizer


def parts(pruner: Pruner, optimizer: torch.optim.Optimizer) -> list:
    state = optimizer.state
    return [(x, [x.weight, state[x.weight]["momentum_buffer"]]) for x in pruner.layers.values()]


def test_torch_gets_what_native_code_cannot_serve() -> None:
    if library("masks") is None:
        pytest.skip("no compiler")
    model = Mixed()
    pruner, optimizer = pruned(model)
    left = Multiplication(parts(pruner, optimizer))._tensors
    assert [x.dtype for x in left] == [torch.float64] * 2
    momentum = optimizer.state[model.c.weight]["momentum_buffer"]
    momentum.data = momentum.data.contiguous(memory_format=torch.channels_last)
    left = Multiplication(parts(pruner, optimizer))._tensors
    assert [x.data_ptr() == momentum.data_ptr() for x in left] == [True, False, False]
    momentum.add_(1)
    pruner.reapply(optimizer)
    assert not momentum[~pruner.masks["c"].keep].any()
    assert momentum[pruner.masks["c"].keep].all()


MOVES = {
    "the weight's memory": lambda model, optimizer: setattr(model.c.weight, "data", model.c.weight.data.clone()),
    "the weight's order": lambda model, optimizer: model.to(memory_format=torch.channels_last),
    "the weight's type": lambda model, optimizer: model.double(),
    "a state tensor": lambda model, optimizer: optimizer.state[model.c.weight].update(
        momentum_buffer=torch.ones_like(model.c.weight)
    ),
    "a state tensor's memory": lambda model, optimizer: setattr(
        optimizer.state[model.c.weight]["momentum_buffer"], "data", torch.ones_like(model.c.weight)
    ),
    "the optimizer's state": lambda model, optimizer: optimizer.load_state_dict(deepcopy(optimizer.state_dict())),
    "nothing": lambda model, optimizer: None,
}


@pytest.mark.parametrize("what", MOVES)
def test_what_moved_is_looked_up_anew(what: str) -> None:
    model = Mixed()
    pruner, optimizer = pruned(model)
    pruner.reapply(optimizer)
    MOVES[what](model, optimizer)
    for layer in pruner.layers.values():
        layer.weight.data.fill_(1)
        optimizer.state[layer.weight]["momentum_buffer"].fill_(1)
    pruner.reapply(optimizer)
    for layer in pruner.layers.values():
        for x in (layer.weight, optimizer.state[layer.weight]["momentum_buffer"]):
            assert torch.equal(x.detach() != 0, layer.keep.view(x.shape))


def test_a_tightened_mask_is_seen() -> None:
    model = Mixed()
    pruner, optimizer = pruned(model)
    pruner.update(pruner.stages[0], 0.75, dict.fromkeys(pruner.layers, 0.75))
    model.c.weight.data.fill_(1)
    pruner.reapply(optimizer)
    assert int(model.c.weight.sum()) == round(0.25 * model.c.weight.numel())


def test_state_in_codes_is_left_alone() -> None:
    model = Mixed()
    pruner, optimizer = pruned(model)
    codes = {"seen": torch.ones_like(model.c.weight, dtype=torch.bool), "ages": torch.ones_like(model.c.weight).int()}
    optimizer.state[model.c.weight].update(codes)
    model.c.weight.data.fill_(1)
    pruner.reapply(optimizer)
    assert torch.equal(model.c.weight.detach() != 0, pruner.masks["c"].keep.view(model.c.weight.shape))
    assert all(codes[name].all() for name in codes)
