"""Methods that let weights die and grow: what dies, what grows, when, and that budgets follow the papers' numbers."""

import copy
import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD

from campfire import Era, OneShot, Pruner, inter_epoch
from campfire.errors import CampfireError, CheckpointError, DoesNotFit, UsageError
from campfire.methods import named

CONSTANT = Era(0, 4, 0.5, initial=0.5, by="step")

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 3, padding=1), nn.Flatten())


def loss_of(net: nn.Module, number: int) -> torch.Tensor:
    return net(torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(number))).square().mean()


def bound(method: Any, structure: str = "fine", schedule: Any = CONSTANT, lr: float = 0.1, **options: Any):
    net = model()
    optimizer = SGD(net.parameters(), lr=lr, momentum=0.9)
    return net, optimizer, Pruner(net, {"2": structure}, schedule, method=method, **options).attach(optimizer, 5)


def step(net: nn.Module, optimizer: SGD, number: int, parts: int = 1) -> None:
    optimizer.zero_grad()
    for part in range(parts):
        loss_of(net, number * parts + part).backward()
    optimizer.step()


def test_rigl_drop_fraction() -> None:
    """U-14: alpha .3 at the start, half of it in the middle, 0 at the end."""
    stage: Any = SimpleNamespace(schedule=Era(2, 8, 0.5, by="step"))
    rigl: Any = named("rigl")
    assert [round(rigl.dying(stage, e), 9) for e in (2, 6, 10, 99)] == [0.3, 0.15, 0.0, 0.0]


def test_set_drops_the_same_share_always() -> None:
    stage: Any = SimpleNamespace(schedule=CONSTANT)
    method: Any = named("set:fraction=0.2")
    assert [method.dying(stage, e) for e in (0, 2, 4)] == [0.2] * 3


def test_dsr_threshold() -> None:
    """U-14."""
    method: Any = named("dsr")
    assert [method.adapted(1e-3, n, 400_000) for n in (450_000, 350_000, 400_000)] == [5e-4, 2e-3, 1e-3]


def test_dsr_updates_become_rarer_by_quarters() -> None:
    stage: Any = SimpleNamespace(schedule=Era(0, 4, 0.5, by="step"))
    method: Any = named("dsr:updates=15")
    made = [int(15 * method.passed(stage, e) + 1e-9) for e in (0, 1, 2, 3, 4)]
    assert [b - a for a, b in itertools.pairwise(made)] == [8, 4, 2, 1]


@pytest.mark.parametrize("parts", [1, 3])
def test_rigl_is_the_papers_rule(parts: int) -> None:
    """By hand: the 30 % smallest of what lives die, and the largest dense gradients among all but the survivors grow."""
    net, optimizer, pruner = bound("rigl:updates=4")
    for number in range(5):
        step(net, optimizer, number, parts)
    weight, keep = net[2].weight.detach().clone(), pruner.masks["2"].keep.clone()
    bare = copy.deepcopy(net)
    for part in range(parts):
        loss_of(bare, 5 * parts + part).backward()
    share = 0.15 * (1 + math.cos(math.pi / 4))  # the second of four updates
    left = int(keep.sum()) - round(share * int(keep.sum()))
    order = torch.where(keep, weight.abs(), -1.0).flatten().argsort(descending=True)
    survivors = torch.zeros_like(keep).flatten()
    survivors[order[:left]] = True
    grown = torch.where(survivors, -1.0, bare[2].weight.grad.abs().flatten()).argsort(descending=True)
    expected = survivors.clone()
    expected[grown[: int(keep.sum()) - left]] = True
    step(net, optimizer, 5, parts)
    assert torch.equal(pruner.masks["2"].keep.flatten(), expected)
    assert bool((expected & ~keep.flatten()).any())


def test_dense_gradients_start_anew_after_zero_grad() -> None:
    """A backward pass that no step follows, as after an infinity, leaves nothing behind: set to None or to zero."""
    masks = []
    for spoil in (None, True, False):
        net, optimizer, pruner = bound("rigl:updates=20")
        for number in range(4):
            if spoil is not None:
                optimizer.zero_grad()
                (100 * loss_of(net, 77)).backward()
                optimizer.zero_grad(set_to_none=spoil)
                loss_of(net, number).backward()
                optimizer.step()
            else:
                step(net, optimizer, number)
        masks.append(pruner.masks["2"].keep)
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("structure", ["ck", "kernel", "tiles:rows=2,channels=2", "window", "filter", "hrbp:rows=2"])
@pytest.mark.parametrize("method", ["rigl", "set", "dsr:threshold=0.05", "deepr:hot=1,cold=1"])
def test_masks_move_in_units_and_revive(method: str, structure: str) -> None:
    net, optimizer, pruner = bound(method, structure)
    seen = []
    for number in range(20):
        step(net, optimizer, number)
        seen.append(pruner.masks["2"].keep.clone())
    if structure in ("ck", "kernel", "window") or not method.startswith("deepr"):  # large units seldom turn as a whole
        assert any(bool((b & ~a).any()) for a, b in itertools.pairwise(seen)), "nothing ever grew"


def test_what_grows_starts_at_zero_and_trains() -> None:
    net, optimizer, pruner = bound("rigl:updates=20", lr=0.0)
    step(net, optimizer, 0)
    before = pruner.masks["2"].keep.clone()
    step(net, optimizer, 1)
    grown = pruner.masks["2"].keep & ~before
    assert bool(grown.any())
    assert not net[2].weight[grown].any()
    optimizer.param_groups[0]["lr"] = 0.1
    pruner.detach()
    optimizer.zero_grad()
    loss_of(net, 2).backward()
    assert net[2].weight.grad[grown].any()


def test_dsr_moves_budgets_between_layers_and_keeps_their_sum() -> None:
    net = model()
    with torch.no_grad():
        net[2].weight.mul_(0.1)
    optimizer = SGD(net.parameters(), lr=0.0)
    rules = {"0": "fine", "2": "fine"}
    pruner = Pruner(net, rules, CONSTANT, method="dsr:threshold=0.02").attach(optimizer, 5)
    history = []
    for number in range(10):
        step(net, optimizer, number)
        history.append({n: x.kept for n, x in pruner.layers.items()})
    assert {sum(kept.values()) for kept in history} == {36 + 144}
    assert history[-1]["0"] > history[0]["0"]


def test_itop_explores_sooner() -> None:
    rates = []
    for spec in ("set:itop=true", "set"):
        net, optimizer, pruner = bound(spec, lr=0.01)
        explored = torch.zeros(8, 4, 3, 3, dtype=torch.bool)
        for number in range(12):
            step(net, optimizer, number)
            explored |= pruner.masks["2"].keep
        rates.append(float(explored.float().mean()))
        if spec != "set":
            assert pruner.method.explored() == pytest.approx(rates[-1])
    assert rates[0] > rates[1]
    assert rates[0] == 1.0


def test_deepr_kills_what_changes_its_sign() -> None:
    net, optimizer, pruner = bound("deepr:l1=0,hot=1e-30,cold=1e-30", lr=0.0)
    step(net, optimizer, 0)
    keep = pruner.masks["2"].keep.clone()
    flipped = keep & (torch.arange(keep.numel()).view_as(keep) % 5 == 0)
    with torch.no_grad():
        net[2].weight[flipped] *= -1
    step(net, optimizer, 1)
    now = pruner.masks["2"].keep
    assert not net[2].weight[flipped].any()
    assert torch.equal(now & keep & ~flipped, keep & ~flipped)
    assert int(now.sum()) == int(keep.sum())


def test_gradients_that_are_not_there() -> None:
    net, optimizer, _ = bound("rigl:updates=20")
    step(net, optimizer, 0)
    net[2].requires_grad_(False)
    optimizer.zero_grad()
    loss_of(net, 1).backward()
    with pytest.raises(UsageError, match="goes by gradients, and layer '2' has none in this step: it is frozen"):
        optimizer.step()


@pytest.mark.parametrize(
    ("rules", "schedule", "says"),
    [
        ("ck", OneShot(0, 0.5), "no time between them; use Era"),
        (inter_epoch(0, 4, 0.5), None, "revives weights, and a phase after the first one of 2"),
    ],
)
def test_what_it_refuses(rules, schedule, says: str) -> None:
    with pytest.raises(DoesNotFit, match=says):
        Pruner(model(), rules, schedule, method="set")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rigl:fraction=1", "fraction is the share that dies"),
        ("set:updates=0", "updates are 1 or more"),
        ("dsr:threshold=0", "threshold is > 0"),
        ("deepr:eta=0", "eta, hot and cold are > 0"),
    ],
)
def test_options_out_of_range(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        named(spec)


@pytest.mark.parametrize(
    ("method", "state"),
    [
        ("set", {}),
        ("rigl", {"explored": {"2": torch.zeros(3)}}),
        ("rigl", {"explored": {"7": torch.zeros(3)}}),
        ("dsr", {"explored": {}, "threshold": -1.0}),
        ("deepr", {"explored": {}, "signs": {"2": torch.zeros(1)}}),
        ("snip", {"seen": 1, "sums": {"2": torch.full((8, 4, 3, 3), math.nan)}}),
        ("grasp", {"sums": [1]}),
        ("lottery", {"origin": {"2.weight": 3}}),
    ],
)
def test_damaged_states_are_refused(method: str, state: dict[str, Any]) -> None:
    schedule = {"snip": OneShot(0, 0.5), "grasp": OneShot(0, 0.5), "lottery": OneShot(2, 0.5)}.get(method, CONSTANT)
    pruner = bound(method, schedule=schedule)[2]
    saved = pruner.state_dict()
    saved["method"]["state"] = state
    with pytest.raises(CheckpointError, match=r"the state of method|is damaged|a bit mask"):
        pruner.load_state_dict(saved)


def test_dsr_leaves_a_layer_of_one_unit_its_unit() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3), nn.ReLU(), nn.Conv2d(1, 1, 3)
    net = nn.Sequential(*layers)
    with torch.no_grad():
        net[4].weight.mul_(1e-3)
    optimizer = SGD(net.parameters(), lr=0.0)
    pruner = Pruner(net, "ck", CONSTANT, method="dsr:updates=8").attach(optimizer, 2)
    for _ in range(4):
        optimizer.zero_grad()
        net(torch.randn(2, 3, 12, 12)).square().mean().backward()
        optimizer.step()
        assert {n: x.kept for n, x in pruner.layers.items()} == {"2": 36, "4": 9}
    Pruner(net, "ck", CONSTANT, method="dsr:updates=8").load_state_dict(pruner.state_dict())


def test_nothing_grows_into_an_empty_layer() -> None:
    net, optimizer, pruner = bound("set")
    step(net, optimizer, 0)
    keep, noise = pruner.masks["2"].keep, {"2": torch.rand(8, 4, 3, 3)}
    with pytest.raises(CampfireError, match=r"layer '2' would lose everything; lower its sparsity \(1.0000\)"):
        pruner.regrow(pruner.stages[0], 0.5, {"2": keep}, noise, {"2": 1.0})
    assert torch.equal(pruner.masks["2"].keep, keep)


@pytest.mark.parametrize("unscales", [False, True])
def test_deepr_by_a_fused_optimizer_with_a_scaler(unscales: bool) -> None:
    """The scaler's factor is still on the gradients then, unless the loop took it off itself, as before clipping."""
    ends = []
    for fused, scale in ((False, 1.0), (False, 2.0**16), (True, 2.0**16)):
        net = model()
        optimizer = SGD(net.parameters(), lr=0.1, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)  # pyright: ignore[reportPrivateImportUsage]
        Pruner(net, {"2": "fine"}, CONSTANT, method="deepr:l1=0.1,hot=0.1").attach(optimizer, 5)
        for number in range(6):
            optimizer.zero_grad()
            scaler.scale(loss_of(net, number)).backward()
            if unscales:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
        ends.append(net[2].weight.detach())
    assert torch.allclose(ends[0], ends[1], atol=1e-6)
    assert torch.allclose(ends[1], ends[2], atol=1e-6)
