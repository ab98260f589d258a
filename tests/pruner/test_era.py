"""Through the era: exact, nested, on time, and frozen afterwards."""

import pytest
import torch
from pruner_nets import ERA, assert_true_to_masks, net, run, train
from torch import nn
from torch.optim import SGD

from campfire import Era, Mask, Pruner, Steps
from campfire.selection import guarded_floor
from campfire.structures import REGISTRY, named


def widest(model: nn.Module, spec: str) -> dict[object, str]:
    """The structure wherever it fits."""
    return {lambda name, module: not structure_misfits(spec, module): spec}


def structure_misfits(spec: str, module: nn.Module) -> list[str]:
    shape = tuple(module.weight.shape)
    return named(spec).why_not(shape if len(shape) == 4 else (*shape, 1, 1))


SPECS = [
    *sorted(set(REGISTRY) - {"tiles", "hrbp", "hrbp++"}),  # these layers are smaller than their boxes
    "tiles:rows=4,channels=2",
    "hrbp:rows=4",
    "hrbp++:rows=4",
    "window:mode=campfire",
    "window:mode=mixed",
    "combined:share=0.5",
    "combined:literal=true",
    "2:4",
    "block:n=2",
    "two-tier:n=2",
]


@pytest.mark.parametrize("spec", SPECS)
def test_every_structure_is_nested_and_exact(spec):
    model = net()
    previous: dict[str, Mask] = {}
    for pruner in run(model, widest(model, spec)):
        for name, layer in pruner.layers.items():
            assert layer.kept == layer.structure.count(layer.target.shape, layer.requested)
            mask = layer.mask
            if mask is not None:
                assert layer.kept == int(mask.keep.sum())
                assert not layer.structure.why_invalid(mask)
            if name in previous:
                assert mask is not None
                assert not (mask.keep & ~previous[name].keep).any(), f"{name}: the dead came back"
        previous = pruner.masks
    assert pruner.frozen
    assert {layer.requested for layer in pruner.layers.values()} == {0.7}
    assert_true_to_masks(pruner)


@pytest.mark.parametrize("sparsity", [0.2, 0.4, 0.6, 0.7, 0.8])
def test_ck_removes_exactly_its_floor_of_kernels_in_each_layer(sparsity):
    *_, pruner = run(net(), "ck", Era(0, 2, sparsity), epochs=3)
    for row in pruner.report().layers:
        if row.structure:
            assert row.kernels - row.kept_kernels == guarded_floor(sparsity * row.kernels)


def test_the_era_keeps_the_papers_time():
    """Eq. 1: nothing before the start, the target in epoch start + length, and it stands still inside an epoch."""
    history = [pruner.layers["body"].kept for pruner in run(net(), "ck", ERA, pace=2)]
    kernels = [128 - guarded_floor(ERA(epoch) * 128) for epoch in range(7) for _ in range(2)]
    assert history == [9 * kept for kept in kernels]
    assert history[:4] == [1152] * 4  # e = start: s = 0
    assert history[9] > history[10] == history[-1]


def test_by_step_the_target_moves_with_every_step():
    era = Era(0, 2, 0.8, by="step")
    history = [1 - pruner.layers["point"].kept / 256 for pruner in run(net(), "ck", era, pace=5, epochs=3)]
    assert history == [1 - (256 - guarded_floor(era(i / 5) * 256)) / 256 for i in range(15)]
    assert len(set(history)) == 10


def test_every_thins_the_updates_but_never_the_last():
    era = Era(0, 2, 0.8, by="step")
    history = [pruner.layers["point"].kept for pruner in run(net(), "ck", era, pace=5, epochs=3, every=4)]
    changes = [i for i in range(1, 15) if history[i] != history[i - 1]]
    assert changes == [4, 8, 10]  # step 10 reaches the target
    assert history[-1] == 256 - guarded_floor(0.8 * 256)


def test_masks_do_not_change_after_the_era():
    sums = []
    for pruner in run(net(), "fine", Era(0, 1, 0.5), epochs=6):
        if pruner.frozen:
            sums.append({n: m.checksum() for n, m in pruner.masks.items()})
    assert len(sums) == 9  # from the last step of epoch 1 on
    assert all(s == sums[0] for s in sums)


def test_a_jump_past_the_era_reaches_the_target_in_one_step():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", ERA).attach(optimizer, steps_per_epoch=2)
    train(model, [optimizer], [0])
    pruner.set_epoch(40)
    assert not pruner.frozen
    train(model, [optimizer], [1])
    assert pruner.frozen
    assert pruner.layers["point"].kept == 256 - guarded_floor(0.7 * 256)
    assert_true_to_masks(pruner, optimizer)


def test_a_falling_target_changes_nothing():
    """Methods U-13, monotone: s falls from .6 to .5, the mask is unchanged."""
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", Steps(((0, 0.5), (2, 0.6)))).attach(optimizer, steps_per_epoch=1)
    train(model, [optimizer], range(4))
    before = pruner.state_dict()["layers"]
    pruner.set_epoch(0)
    train(model, [optimizer], range(4, 6))
    after = pruner.state_dict()["layers"]
    assert all(torch.equal(before[n]["bits"], after[n]["bits"]) for n in before)
    assert after["point"]["requested"] == 0.6
    assert_true_to_masks(pruner, optimizer)


def test_set_epoch_for_loops_that_know_better():
    model = net()
    optimizer = SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, "ck", Era(0, 3, 0.6)).attach(optimizer, steps_per_epoch=100)
    for epoch, length in enumerate((2, 1, 3, 2)):
        pruner.set_epoch(epoch)
        train(model, [optimizer], range(length))
        assert pruner.layers["point"].requested == pytest.approx(Era(0, 3, 0.6)(epoch))
        assert int(pruner.epoch) == epoch
