"""Methods that choose all masks once: their scores by hand, when they choose, and what they must be shown."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.utils.checkpoint import checkpoint

from campfire import Era, OneShot, Pruner, inter_epoch
from campfire.errors import DoesNotFit, UsageError
from campfire.methods import named
from campfire.selection import keep_best

RULES = {"0": "fine", "3": "fine"}

pytestmark = pytest.mark.filterwarnings("ignore::campfire.errors.LostOutputs")


def model() -> nn.Sequential:
    torch.manual_seed(1)
    layers = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 8, 3), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8 * 9, 4))


def batch(number: int) -> torch.Tensor:
    return torch.randn(4, 2, 5, 5, generator=torch.Generator().manual_seed(number))


def loss_of(net: nn.Module, number: int) -> torch.Tensor:
    return net(batch(number)).logsumexp(1).mean()


def bound(method: str, rules: Any = None, at: float = 0, sparsity: float = 0.6, **options: Any):
    net = model()
    optimizer = SGD(net.parameters(), lr=0.1, momentum=0.9)
    rules = RULES if rules is None else rules
    return net, optimizer, Pruner(net, rules, OneShot(at, sparsity), method=method, **options).attach(optimizer, 4)


def step(net: nn.Module, optimizer: SGD, pruner: Pruner, number: int = 0, show: bool = True) -> None:
    optimizer.zero_grad()
    loss = loss_of(net, number)
    if show:
        pruner.batch(loss, batch(number))
    loss.backward()
    optimizer.step()


def best(scores: dict[str, torch.Tensor], sparsity: float) -> dict[str, torch.Tensor]:
    """The best weights of all layers together."""
    flat = torch.cat([x.flatten() for x in scores.values()])
    keep = keep_best(flat, flat.numel() - int(sparsity * flat.numel() + 1e-9))
    parts = keep.split([x.numel() for x in scores.values()])
    return {n: part.view_as(x) for (n, x), part in zip(scores.items(), parts, strict=True)}


def assert_masks(pruner: Pruner, wanted: dict[str, torch.Tensor]) -> None:
    for name, keep in wanted.items():
        assert torch.equal(pruner.masks[name].keep, keep), name


def test_snip_by_hand() -> None:
    net, optimizer, pruner = bound("snip", allocation="global")
    bare = copy.deepcopy(net)
    loss_of(bare, 0).backward()
    wanted = best({n: (bare[int(n)].weight * bare[int(n)].weight.grad).abs().detach() for n in RULES}, 0.6)
    step(net, optimizer, pruner, show=False)
    assert_masks(pruner, wanted)


def test_snip_over_several_steps() -> None:
    net, optimizer, pruner = bound("snip:steps=3", {"3": "fine"})
    total = torch.zeros(8, 6, 3, 3)
    for number in range(3):
        assert not pruner.masks
        bare = copy.deepcopy(net)
        loss_of(bare, number).backward()
        total += (bare[3].weight * bare[3].weight.grad).detach()
        step(net, optimizer, pruner, number)
    assert_masks(pruner, {"3": keep_best(total.abs().flatten(), 432 - int(0.6 * 432)).view_as(total)})


def test_grasp_by_hand() -> None:
    """H g by differences of gradients, in float64."""
    net, optimizer, pruner = bound("grasp", allocation="global")
    bare = copy.deepcopy(net).double()
    weights = [bare[0].weight, bare[3].weight]

    def grads() -> list[torch.Tensor]:
        return list(torch.autograd.grad(bare(batch(0).double()).logsumexp(1).mean(), weights))

    bare.eval()
    bare.train()  # batch statistics, as in training
    first, eps = grads(), 1e-5
    with torch.no_grad():
        for w, g in zip(weights, first, strict=True):
            w += eps * g
    second = grads()
    flow = {n: (b - a) / eps for n, a, b in zip(RULES, first, second, strict=True)}
    scores = {n: net[int(n)].weight.detach().double() * flow[n] for n in RULES}
    least = min(float(x.min()) for x in scores.values())
    wanted = best({n: (x - least).float() for n, x in scores.items()}, 0.6)
    step(net, optimizer, pruner)
    differ = sum(int((pruner.masks[n].keep != wanted[n]).sum()) for n in RULES)
    assert differ <= 4  # of 540: neighbours in rank may change places in float32


def test_synflow_densities() -> None:
    """U-14."""
    method: Any = named("synflow")
    assert [round(method.density(0.1, n), 6) for n in (1, 50, 100)] == [0.977237, 0.316228, 0.1]


def test_synflow_by_hand() -> None:
    net, optimizer, pruner = bound("synflow:rounds=7", allocation="global", sparsity=0.9)
    bare = copy.deepcopy(net).double().eval()
    with torch.no_grad():
        for x in bare.state_dict().values():
            x.abs_()
    keep = {n: torch.ones_like(bare[int(n)].weight, dtype=torch.bool) for n in RULES}
    for round in range(1, 8):
        weights = [bare[int(n)].weight for n in RULES]
        grads = torch.autograd.grad(bare(torch.ones(1, 2, 5, 5, dtype=torch.float64)).sum(), weights)
        keep = best(
            {n: (w * g).detach() for n, w, g in zip(RULES, weights, grads, strict=True)}, 1 - 0.1 ** (round / 7)
        )
        with torch.no_grad():
            for n in RULES:
                bare[int(n)].weight.mul_(keep[n])
    step(net, optimizer, pruner)
    assert_masks(pruner, keep)
    assert all(x.grad_fn is None and x.is_leaf for x in net.parameters())


def test_synflow_cuts_no_layer_off() -> None:
    """At a density of one in fifty, where magnitudes over all layers would leave a layer one weight."""
    _, _, pruner = run = bound("synflow", allocation="global", sparsity=0.98)
    step(*run)
    assert min(x.kept for x in pruner.layers.values()) > 1


@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow:rounds=3"])
@pytest.mark.parametrize("structure", ["ck", "tiles:rows=2,channels=2", "hrbp:rows=4"])
def test_in_structures_once_and_for_all(method: str, structure: str) -> None:
    net, optimizer, pruner = bound(method, {"3": structure})
    step(net, optimizer, pruner)
    mask = pruner.masks["3"]
    assert not pruner.layers["3"].structure.why_invalid(mask)
    assert pruner.layers["3"].kept == pruner.layers["3"].structure.count((8, 6, 3, 3), 0.6)
    assert pruner.frozen
    for number in range(1, 4):
        step(net, optimizer, pruner, number)
    assert torch.equal(mask.keep, pruner.masks["3"].keep)


def test_random_depends_on_the_seed_and_the_layer_alone() -> None:
    masks = {}
    for seed, structure in ((0, "fine"), (0, "fine"), (1, "fine")):
        net, optimizer, pruner = bound("random", {"0": structure, "3": structure}, seed=seed)
        with torch.no_grad():
            net[3].weight += seed
        step(net, optimizer, pruner)
        masks.setdefault(seed, []).append(pruner.masks["3"].keep)
    assert torch.equal(*masks[0])
    assert not torch.equal(masks[0][0], masks[1][0])


def test_later_than_at_init() -> None:
    net, optimizer, pruner = bound("magnitude", at=1)
    kept = []
    for number in range(6):
        step(net, optimizer, pruner, number)
        kept.append(pruner.sparsity)
    assert [k > 0 for k in kept] == [False] * 4 + [True] * 2


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("grasp", r"has seen none: call pruner.batch\(loss\) before loss.backward"),
        ("synflow", r"shape of what the model is given: call pruner.batch\(loss, x\)"),
    ],
)
def test_what_was_never_shown(method: str, says: str) -> None:
    run = bound(method)
    with pytest.raises(UsageError, match=says):
        step(*run, show=False)


@pytest.mark.parametrize("method", ["snip", "grasp"])
def test_gradients_that_are_not_there(method: str) -> None:
    net, optimizer, pruner = bound(method)
    net[0].requires_grad_(False)
    with pytest.raises(UsageError, match="frozen"):
        step(net, optimizer, pruner)


def test_synflow_that_vanishes() -> None:
    net, optimizer, pruner = bound("synflow")
    with torch.no_grad():
        net[3].weight.zero_()
    with pytest.raises(UsageError, match="vanishes or overflows"):
        step(net, optimizer, pruner)


@pytest.mark.parametrize("method", ["random", "magnitude", "snip", "grasp", "synflow"])
def test_only_once(method: str) -> None:
    with pytest.raises(DoesNotFit, match="prunes once, by a OneShot schedule, and Era prunes on"):
        Pruner(model(), "ck", Era(0, 2, 0.5), method=method)
    with pytest.raises(DoesNotFit, match="prunes once"):
        Pruner(model(), inter_epoch(0, 4, 0.5), method=method)


@pytest.mark.parametrize("spec", ["snip:steps=0", "synflow:rounds=0"])
def test_options_out_of_range(spec: str) -> None:
    with pytest.raises(UsageError, match=r"1 .*or more"):
        named(spec)


class Affine(nn.Module):
    """What a norm does beside normalising."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.weight, self.bias = getattr(norm, "weight", None), getattr(norm, "bias", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = [None if v is None else v if v.dim() > 1 else v.view(-1, 1, 1) for v in (self.weight, self.bias)]
        x = x if wide[0] is None else x * wide[0]
        return x if wide[1] is None else x + wide[1]


class ChannelsLast(nn.LayerNorm):
    """Normalises channels, as in ConvNeXt."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Checkpointed(nn.Module):
    """Is run again in the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(6, affine=True)
        self.weight, self.bias = self.norm.weight, self.norm.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.norm, x, use_reentrant=False)  # pyright: ignore[reportReturnType]


class ByFunction(nn.Module):
    """Without a norm module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.instance_norm(nn.functional.layer_norm(x, x.shape[1:]))


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.InstanceNorm2d(6),
        lambda: nn.InstanceNorm2d(6, affine=True),
        lambda: nn.BatchNorm2d(6),
        lambda: nn.BatchNorm2d(6, track_running_stats=False),
        lambda: nn.GroupNorm(2, 6),
        lambda: nn.LayerNorm([6, 5, 5]),
        lambda: nn.RMSNorm([6, 5, 5]),
        lambda: nn.LocalResponseNorm(3, alpha=9.0),
        lambda: ChannelsLast(6),
        Checkpointed,
        ByFunction,
    ],
)
def test_synflow_sees_of_norms_their_affine_part(norm: Any) -> None:
    masks = []
    for stand_in in (False, True):
        net = model()
        torch.manual_seed(3)
        net[1], net[2] = norm(), nn.ReLU()
        for p in net[1].parameters():
            nn.init.uniform_(p, 0.5, 2)
        normed = net(batch(0))
        if stand_in:
            net[1] = Affine(net[1])
        optimizer = SGD(net.parameters(), lr=0.0)
        schedule, options = OneShot(0, 0.9), {"method": "synflow:rounds=7", "allocation": "global"}
        pruner = Pruner(net, RULES, schedule, **options).attach(optimizer, 4)
        dense = [p.detach().clone() for p in net.parameters()]
        step(net, optimizer, pruner)
        masks.append({n: pruner.masks[n].keep for n in RULES})
        with torch.no_grad():
            for p, was in zip(net.parameters(), dense, strict=True):
                p.copy_(was)
        assert stand_in or torch.allclose(net.train()(batch(0)), normed)  # norms normalise again
    assert all(torch.equal(masks[0][n], masks[1][n]) for n in RULES)
    assert masks[0]["0"].float().mean() > 0.05  # the layer before the norm counts


class Holding(nn.Module):
    """Adds the sum of a buffer that no state holds; beside it what has no absolute value."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("index", torch.tensor([2, -1]))
        self.register_buffer("shift", torch.tensor([-3.0]), persistent=False)
        self.table = nn.Parameter(torch.tensor([1]), requires_grad=False)

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        return

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift * self.mask.sum()


def test_synflow_with_buffers_of_bools_and_indices() -> None:
    net = model()
    net[2] = Holding()
    optimizer = SGD(net.parameters(), lr=0.0)
    pruner = Pruner(net, RULES, OneShot(0, 0.6), method="synflow:rounds=3").attach(optimizer, 4)
    step(net, optimizer, pruner)
    assert pruner.sparsity == pytest.approx(0.6, abs=0.01)
    assert net[2].mask.tolist() == [True, False]
    assert net[2].index.tolist() == [2, -1]


@pytest.mark.parametrize("fused", [False, True])
def test_snip_over_steps_between_which_the_scale_changes(fused: bool) -> None:
    """A fused optimizer has the factor of GradScaler taken off inside its step."""
    sums = []
    for scales in ([1.0, 1.0], [2.0**16, 2.0]):
        net = model()
        optimizer = SGD(net.parameters(), lr=0.1, fused=fused)
        pruner = Pruner(net, RULES, OneShot(0, 0.6), method="snip:steps=3").attach(optimizer, 4)
        scaler = torch.amp.GradScaler("cpu")  # pyright: ignore[reportPrivateImportUsage]
        for number, scale in enumerate(scales):
            optimizer.zero_grad()
            scaler.scale(torch.zeros(()))  # it makes its scale at its first use
            scaler.update(scale)
            scaler.scale(loss_of(net, number)).backward()
            scaler.step(optimizer)
            scaler.update()
        sums.append(pruner.method.memory["sums"])
    assert all(torch.allclose(sums[0][n], sums[1][n], rtol=1e-4, atol=1e-7) for n in RULES)


def test_synflow_with_a_part_that_is_compiled() -> None:
    masks = []
    for compiled in (False, True):
        net = model()
        if compiled:
            net[3] = torch.compile(net[3], backend="eager")
        optimizer = SGD(net.parameters(), lr=0.0)
        pruner = Pruner(net, {"*": "fine"}, OneShot(0, 0.6), method="synflow:rounds=3").attach(optimizer, 4)
        step(net, optimizer, pruner)
        masks.append({name: mask.keep for name, mask in pruner.masks.items()})
    assert list(masks[0]) == list(masks[1])
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
