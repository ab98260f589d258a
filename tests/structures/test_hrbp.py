import itertools

import pytest
import torch
from torch import Tensor, nn

from campfire import OneShot, Pruner
from campfire.errors import CampfireError, CheckpointError, LostOutputs, UnknownName, UsageError
from campfire.mask import Mask
from campfire.structures import named


def projected(spec: str, score: Tensor, sparsity: float) -> Mask:
    """A mask in one go."""
    structure, shape = named(spec), tuple(score.shape)
    plan = structure.plan(score, sparsity)
    keep = structure.project(score, structure.count(shape, sparsity), plan, torch.ones(shape, dtype=torch.bool))
    assert structure.why_invalid(Mask(keep, plan)) == []
    return Mask(keep, plan)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) + 1e-3


def planted(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A score [128, 32, 3, 3] that is large in blocks of 32 shuffled outputs x 8 inputs x 4 taps; and where."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(128, generator=generator)
    heavy = torch.zeros(4, 32, 9, dtype=torch.bool)
    for group in range(4):
        inputs, taps = (torch.randperm(n, generator=generator)[:k] for n, k in ((32, 8), (9, 4)))
        heavy[group, inputs[:, None], taps] = True
    where = torch.empty(128, 32, 3, 3, dtype=torch.bool)
    where[order] = heavy.view(4, 32, 3, 3).repeat_interleave(32, 0)
    return torch.rand(where.shape, generator=generator) * 0.1 + where, where


BUDGETS = [  # U-8: K = C, density, block, blocks kept of whole kernels, of 5 taps, of 4 taps
    (64, 0.1, 16, 2, 3, 4),
    (128, 0.2, 16, 13, 23, 29),
    (256, 0.1, 32, 6, 12, 14),
    (512, 0.05, 32, 13, 23, 29),
]


@pytest.mark.parametrize(("size", "density", "side", "all_taps", "five", "four"), BUDGETS)
def test_u8_budget(size: int, density: float, side: int, all_taps: int, five: int, four: int) -> None:
    shape, box = (size, size, 3, 3), f"rows={side},channels={side}"
    for spec, taps, blocks in (("hrbp", 9, all_taps), ("hrbp++", 5, five), ("hrbp++", 4, four)):
        structure = named(f"{spec}:{box}" + f",taps={taps}" * (taps < 9))
        assert structure.count(shape, 1 - density) == blocks * side * side * taps


@pytest.mark.parametrize("order", ["cut", "cluster"])
def test_shuffled_blocks_are_found_again(order: str) -> None:
    score, where = planted()
    sparsity = 1 - 8 * 4 / (32 * 9)
    assert torch.equal(projected(f"hrbp++:order={order}", score, sparsity).keep, where)
    assert torch.equal(projected(f"hrbp++:channels=4,order={order}", score, sparsity).keep, where)
    kernels = where.amax((2, 3), keepdim=True).expand(where.shape)
    assert torch.equal(projected(f"hrbp:order={order}", score, 0.75).keep, kernels)
    assert not torch.equal(projected("hrbp:order=none", score, 0.75).keep, kernels)


def test_regrouping_keeps_more_and_taps_keep_still_more() -> None:
    """Of rows that have a say in common: 5 % more than the same blocks as they come, at 80 %."""
    base = torch.randn(8, 64, 9, generator=torch.Generator().manual_seed(1)).exp()
    score = (base[torch.arange(128) % 8] * noise(128, 64, 9)).view(128, 64, 3, 3)
    kept = {
        spec: float((score * projected(spec, score, 0.8).keep).sum())
        for spec in ("tiles", "hrbp:order=none", "hrbp", "hrbp++")
    }
    assert kept["hrbp++"] > kept["hrbp"] > 1.05 * max(kept["tiles"], kept["hrbp:order=none"])


def test_the_plan_is_equal_with_any_number_of_threads_and_on_any_scale() -> None:
    score, plans = noise(96, 40, 3, 3), []
    before = torch.get_num_threads()
    for threads, scale in ((1, 1.0), (2, 1.0), (1, 0.5)):
        torch.set_num_threads(threads)
        plans.append(named("hrbp++:rows=16").plan(score * scale, 0.8))
    torch.set_num_threads(before)
    for other in plans[1:]:
        assert all(torch.equal(plans[0][name], other[name]) for name in ("order", "inputs"))


def test_more_inputs_in_a_block_are_those_of_a_group() -> None:
    score = noise(64, 16, 3, 3)
    mask = projected("hrbp:rows=32,channels=4", score, 0.5)
    for rows in mask.plan["order"].view(2, 32):
        held = mask.keep[rows].sum((0, 2, 3))
        assert set(held.tolist()) <= {0, 32 * 9}
        assert int((held > 0).sum()) % 4 == 0
    side_by_side = projected("hrbp:rows=32,channels=4,inputs=neighbours", score, 0.5)
    assert torch.equal(side_by_side.keep[:, 0::4], side_by_side.keep[:, 3::4])


def test_taps_thin_first_then_blocks_go() -> None:
    score, alive = noise(64, 8, 3, 3), torch.ones(64, 8, 3, 3, dtype=torch.bool)
    structure = named("hrbp++")
    plan = structure.plan(score, 0.9)
    for sparsity in (0.3, 0.5, 0.6, 0.9):
        alive = structure.project(score, structure.count((64, 8, 3, 3), sparsity), plan, alive)
        rows = plan["order"].view(2, 32)
        taps = torch.stack([alive[r[0]].sum((1, 2)) for r in rows])
        assert bool((taps >= 4).all()) if sparsity < 5 / 9 else set(taps.unique().tolist()) == {0, 4}


@pytest.mark.parametrize("spec", ["hrbp:rows=8,channels=2", "hrbp++:rows=8"])
def test_saliency_is_of_the_blocks_that_were_planned(spec: str) -> None:
    """Methods that go by units must see those of the masks: each lives or dies as a whole, at its own mean."""
    score, structure = noise(32, 8, 3, 3), named(spec)
    mask = projected(spec, score, 0.75)
    living = structure.saliency(score * mask.keep, mask.plan)
    assert bool((living[mask.keep] > 0).all())
    assert not living[~mask.keep].any()
    assert float(living.sum()) == pytest.approx(float((score * mask.keep).sum()), rel=1e-5)
    assert structure.saliency(score * mask.keep)[~mask.keep].any()  # as outputs come, the living and the dead are mixed


def test_left_over_outputs_and_inputs_make_smaller_blocks() -> None:
    structure, shape = named("hrbp:rows=16,channels=4"), (40, 10, 3, 3)
    assert structure.why_not(shape) == []
    # 2 x 2 blocks of 16 x 4, 2 of 16 x 2, 2 of 8 x 4, 1 of 8 x 2: half of each, halves up
    assert structure.count(shape, 0.5) == 9 * (2 * 64 + 1 * 32 + 1 * 32 + 1 * 16)
    mask = projected("hrbp:rows=16,channels=4", noise(*shape), 0.5)
    weakest = noise(*shape).sum((1, 2, 3)).argsort(stable=True)[:8]
    assert sorted(mask.plan["order"][32:].tolist()) == sorted(weakest.tolist())


def test_a_single_group_takes_the_strongest_outputs() -> None:
    score = noise(40, 8, 3, 3)
    weakest = sorted(score.sum((1, 2, 3)).argsort(stable=True)[:8].tolist())
    assert named("hrbp").plan(score, 0.5)["order"][32:].tolist() == weakest
    assert named("hrbp:order=none").plan(score, 0.5)["order"].tolist() == list(range(40))


def test_blocks_that_earlier_masks_broke_are_refused() -> None:
    score = noise(64, 8, 3, 3)
    structure, alive = named("hrbp"), score > 0.5
    with pytest.raises(CampfireError, match="left only 0 whole; let no other structure go before it"):
        structure.project(score, structure.count((64, 8, 3, 3), 0.75), structure.plan(score, 0.75), alive)


@pytest.mark.parametrize(
    ("spec", "shape", "sparsity", "says"),
    [
        ("hrbp", (64, 32, 3, 3), 0.75, ""),
        ("hrbp", (72, 32, 3, 3), 0.75, "72 outputs are 2 x 32 and 8 left over, which make smaller blocks"),
        ("hrbp", (64, 34, 3, 3), 0.75, "34 inputs are 8 x 4 and 2 left over, which make smaller blocks"),
        ("hrbp++:taps=25", (64, 8, 3, 3), 0.75, "taps=25, and its kernels have 9: whole kernels live, as with hrbp"),
        ("hrbp++:taps=9", (64, 8, 3, 3), 0.75, "taps=9, and its kernels have 9"),
        ("hrbp++", (64, 8, 1, 1), 0.75, ""),  # one tap: nothing to choose
        ("hrbp:rows=8", (64, 8, 3, 3), 0.75, "its blocks number 4, and its groups of outputs 8: 4 without a weight"),
        (
            "hrbp++:rows=8",
            (64, 8, 3, 3),
            0.98,
            "its blocks number 3, and its groups of outputs 8: 5 without a weight",
        ),
    ],
)
def test_what_is_worth_knowing_is_said(spec: str, shape: tuple[int, ...], sparsity: float, says: str) -> None:
    (remark,) = named(spec).remarks(shape, sparsity) or [""]
    assert says in remark
    assert bool(says) == bool(remark)


def test_remarks_stand_in_the_listing() -> None:
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 72, 3), nn.Conv2d(72, 64, 3))
    pruner = Pruner(net, "hrbp", OneShot(0, 0.99), allocation={"1": 0.5, "2": 0.99})
    rows = {row.name: row.remark for row in pruner.report().layers}
    assert rows["0"] == ""
    assert rows["1"] == "72 outputs are 2 x 32 and 8 left over, which make smaller blocks"
    assert rows["2"].startswith("at a sparsity of 0.99 its blocks number 1")
    assert rows["1"] in str(pruner.report())


def test_groups_that_end_without_a_weight_are_told_with_a_cure() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 64, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = Pruner(net, "hrbp:rows=8", OneShot(0, 0.75)).attach(optimizer, 1)
    net(torch.randn(1, 3, 8, 8)).sum().backward()
    with pytest.warns(LostOutputs, match=r"1 \(32 of 64\); ask for fewer zeros there, or for smaller units"):
        optimizer.step()
    assert pruner.sparsity == 0.75


def test_layers_that_do_not_fit_say_why() -> None:
    assert "16 x 64 is smaller than a block of 32 outputs x 4 inputs" in named("hrbp").why_not((16, 64, 3, 3))[0]
    assert "smaller than a block" in named("hrbp").why_not((64, 3, 7, 7))[0]
    assert "4 different groups" in named("hrbp").why_not((64, 16, 3, 3), groups=4)[0]
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3), nn.Conv2d(16, 64, 3))
    report = str(Pruner(net, "hrbp", OneShot(0, 0.5)).report())
    assert "dense: 'hrbp' does not fit: 16 x 32 is smaller than a block of 32 outputs x 4 inputs" in report


@pytest.mark.parametrize("spec", ["hrbp:rows=0", "hrbp:channels=0", "hrbp++:taps=0"])
def test_sizes_out_of_range_are_refused(spec: str) -> None:
    with pytest.raises(UsageError, match="got"):
        named(spec)


@pytest.mark.parametrize("spec", ["hrbp:order=kmeans", "hrbp:inputs=all", "hrbp:guard=rows"])
def test_unknown_options_are_refused(spec: str) -> None:
    with pytest.raises(UnknownName, match="Known"):
        named(spec)


def test_one_tap_layers_and_small_kernels_are_plain_hrbp() -> None:
    score = noise(64, 16, 1, 1)
    for spec in ("hrbp++:rows=16,channels=4", "hrbp:rows=16,channels=4"):
        mask = projected(spec, score, 0.75)
        assert int(mask.keep.sum()) == 4 * 64
    assert named("hrbp++:taps=9").count((64, 8, 3, 3), 0.8) == named("hrbp:channels=1").count((64, 8, 3, 3), 0.8)
    assert named("hrbp++:taps=25").why_not((64, 8, 3, 3)) == []  # more taps than there are: all of them


@pytest.mark.parametrize(("spec", "sparsity"), [("hrbp:rows=4,channels=1", 0.7), ("hrbp++:rows=4", 0.87)])
def test_guards(spec: str, sparsity: float) -> None:
    """14 of 48 blocks live: in scores that would spend them all on a quarter of the outputs, or half of the inputs."""
    weak_outputs, weak_inputs = noise(16, 12, 3, 3), noise(16, 12, 3, 3)
    weak_outputs[4:] *= 1e-3
    weak_inputs[:, 6:] *= 1e-3

    def reached(score: Tensor, axis: int, guard: str, at: float = sparsity) -> int:
        keep = projected(f"{spec},guard={guard}", score, at).keep
        assert int(keep.sum()) == named(spec).count((16, 12, 3, 3), at)
        return int(keep.any(1 - axis).any(-1).any(-1).sum())

    assert reached(weak_outputs, 0, "outputs") == 16 > reached(weak_outputs, 0, "none")
    assert reached(weak_inputs, 1, "inputs") == 12 > reached(weak_inputs, 1, "none")
    for guard, axis in (("outputs", 0), ("inputs", 1), ("both", 0), ("both", 1)):
        assert reached(weak_outputs, axis, guard, 0.6) == (16, 12)[axis]
        assert reached(weak_outputs, axis, guard, 0.97) > 0  # fewer blocks than guards: the best of them


def test_plans_from_anywhere_are_checked() -> None:
    structure, score = named("hrbp:rows=8,channels=2"), noise(16, 8, 3, 3)
    mask = projected(str(structure), score, 0.5)
    for name, part in itertools.product(("order", "inputs"), ("twice", "short", "kind")):
        good = mask.plan[name]
        bad = {"twice": good.clamp(min=1), "short": good[..., :-1], "kind": good.int()}[part]
        assert name in structure.why_invalid(Mask(mask.keep, {**mask.plan, name: bad}))[0]
    assert structure.why_invalid(Mask(mask.keep, {"order": mask.plan["order"].roll(1)}))


def test_the_plan_is_saved_and_a_changed_one_refused() -> None:
    def pruned() -> tuple[nn.Module, Pruner]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 64, 3))
        return net, Pruner(net, "hrbp:rows=16,channels=2", OneShot(0, 0.75))

    net, pruner = pruned()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner.attach(optimizer, steps_per_epoch=1)
    net(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    again = pruned()[1]
    again.load_state_dict(pruner.state_dict())
    assert torch.equal(again.masks["1"].plan["order"], pruner.masks["1"].plan["order"])
    assert again.masks["1"].checksum() == pruner.masks["1"].checksum()
    state = pruner.state_dict()
    state["stages"][0]["plans"]["1"]["order"] = torch.arange(64)
    with pytest.raises(CheckpointError, match="half alive"):
        pruned()[1].load_state_dict(state)
