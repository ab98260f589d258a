"""The costs of whole networks: against other counters, by hand, dense with zeros and compressed alike."""

import json
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode

from campfire import OneShot, Pruner, compress_, models
from campfire.costs import Energy, cost
from campfire.costs.balance import imbalance
from campfire.errors import CampfireError, LostOutputs, UnknownName, UsageError

IMAGE = (3, 32, 32)


def pruned(structure: str, sparsity: float = 0.7) -> tuple[nn.Module, Pruner]:
    torch.manual_seed(0)
    model = models.create("resnet8", num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = Pruner(model, structure, OneShot(0, sparsity)).attach(optimizer, steps_per_epoch=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostOutputs)
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    pruner.detach()
    return model.eval(), pruner


def images(n: int = 2) -> torch.Tensor:
    return torch.randn(n, *IMAGE, generator=torch.Generator().manual_seed(5))


def test_dense_flops_are_those_of_torch() -> None:
    model = models.create("resnet8", num_classes=10).eval()
    with FlopCounterMode(display=False) as counter:
        model(images(1))
    found = cost(model, IMAGE).to_dict()["all"]
    assert found["flops"] == found["sparse_flops"] == counter.get_total_flops()
    assert (found["mao_ratio"], found["file_ratio"], found["activity"]) == (1, 1, None)


def test_zeros_count_as_dead_as_masks_do_and_compressed_as_masked() -> None:
    model, pruner = pruned("ck")
    keep = {name: mask.keep for name, mask in pruner.masks.items()}
    masked = cost(model, IMAGE, keep, images()).to_dict()
    zeros = cost(model, IMAGE, None, images()).to_dict()
    compress_(model, pruner)
    packed = cost(model, IMAGE, None, images()).to_dict()
    assert masked == zeros
    assert packed["parameters"] == masked["parameters"]
    assert packed["living_parameters"] == masked["living_parameters"]
    same = ("living", "macs", "sparse_macs", "sparsity", "mao_ratio", "file_bytes", "weights")
    for name in same:
        assert packed["all"][name] == masked["all"][name]
    ours, theirs = packed["all"]["activity"]["references"], masked["all"]["activity"]["references"]
    assert ours == pytest.approx(theirs, rel=1e-3)  # kernels round differently, so a zero after ReLU may not be one
    assert json.dumps(masked)


def test_one_layer_by_hand() -> None:
    layer = nn.Conv2d(2, 4, 3, padding=1)
    layer.weight.data = torch.ones(4, 2, 3, 3)
    layer.weight.data[1:] = 0  # one filter of 18 weights lives
    row = cost(layer, (2, 4, 4), images=torch.ones(1, 2, 4, 4), array=2, energy=Energy(1, 10, 100)).to_dict()
    total, activity = row["all"], row["all"]["activity"]
    assert row["layers"][0]["grain"] == "filter"
    assert (row["parameters"], row["living_parameters"]) == (72 + 4, 18 + 4)
    assert (total["macs"], total["sparse_macs"]) == (72 * 16, 18 * 16)
    assert total["file_bytes"] == 18 * 4 + 1
    assert total["mao_ratio"] == pytest.approx((18 * 8 + 4) / (72 * 8))
    products = 2 * (3 + 3 + 2 + 2) ** 2  # of the 16 outputs, rows and columns at the edge see two taps
    assert activity["references"] == {"products": products, "row_merge": 2 * 10 * 4, "kernel_merge": 2 * 16}
    assert activity["references_ratio"]["kernel_merge"] == 0.25
    assert activity["moved_bytes"] == 73 + 2 * 16 * 4 + 4 * 16 * 4
    parts = activity["energy_pj"]
    assert (parts["arithmetic"], parts["references"], parts["memory"]) == (products, 2 * 80 * 10, 457 * 100)
    assert total["imbalance"] == {"outputs": 2, "inputs": 1}


def test_a_strict_budget_is_balanced_and_free_masks_are_not() -> None:
    busy = {}
    for structure in ("window", "ck"):
        model, pruner = pruned(structure, 7 / 9)
        keep = {name: mask.keep for name, mask in pruner.masks.items()}
        busy[structure] = [r.imbalance["outputs"] for r in cost(model, IMAGE, keep, array=8).layers if r.name in keep]
    three = [i for i, x in enumerate(busy["window"]) if x == 1]
    assert len(three) >= 6  # 3x3 layers: n of 9 in every kernel
    assert all(busy["ck"][i] > 1.05 for i in three)


def test_busy_and_idle_elements() -> None:
    assert imbalance(torch.zeros(4), 2) == 1
    assert imbalance(torch.tensor([4, 0, 4, 0]), 2) == 2  # dealt in turns, all work falls on one
    assert imbalance(torch.tensor([1, 1, 1]), 4) == pytest.approx(4 / 3)


def test_a_model_is_left_as_it_was() -> None:
    model, _ = pruned("ck")
    model.train()
    model.layer1[0].bn1.eval()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    cost(model, IMAGE, images=images(1))
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_layers_without_2d_activations_count_by_weights_alone() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4))
    rows = cost(net, (3, 5, 5), images=torch.randn(1, 3, 5, 5)).layers
    assert [r.activity is None for r in rows] == [True, False]
    assert rows[0].macs == 3 * 4 * 4 * 25


def test_what_is_refused() -> None:
    model = models.create("resnet8", num_classes=10)
    with pytest.raises(UnknownName, match="did you mean 'layer1"):
        cost(model, IMAGE, {"layer1.0.conv": torch.ones(16, 16, 3, 3)})
    with pytest.raises(UsageError, match="an array has elements"):
        cost(model, IMAGE, array=0)
    with pytest.raises(CampfireError, match="got none"):
        cost(model, IMAGE, images=torch.empty(0, *IMAGE))
    with pytest.raises(UnknownName, match="'drma'; did you mean 'dram'"):
        Energy.of({"drma": 1})
    with pytest.raises(UsageError, match="in picojoules"):
        Energy.of({"mac": -1})


def test_a_stray_zero_is_no_structure_unless_it_was_chosen() -> None:
    model = models.create("resnet8", num_classes=10)
    weight = model.get_submodule("layer1.0.conv1").get_parameter("weight").data
    weight[3, 5, 1, 1] = 0
    row = next(r for r in cost(model, IMAGE).layers if r.name == "layer1.0.conv1")
    assert (row.grain, row.mao_bits, row.file_bytes) == ("dense", 8 * 2304, 4 * 2304)
    total = cost(model, IMAGE).to_dict()["all"]
    assert (total["mao_ratio"], total["file_ratio"]) == (1, 1)
    assert row.living == 2303
    chosen = cost(model, IMAGE, {"layer1.0.conv1": weight}).layers
    row = next(r for r in chosen if r.name == "layer1.0.conv1")
    assert (row.grain, row.mao_bits, row.file_bytes) == ("fine", 12 * 2303, 4 * 2303 + 288)


def test_zeros_that_save_something_are_a_structure() -> None:
    """A tenth of single weights costs more by indices of 4 bits, and less in a file; half saves in both."""
    layer = nn.Conv2d(10, 10, 3, bias=False)
    for dead, grain, mao, file in ((90, "dense", 8 * 900, 4 * 810 + 113), (450, "fine", 12 * 450, 4 * 450 + 113)):
        layer.weight.data = (torch.randperm(900) >= dead).float().view(10, 10, 3, 3)
        (row,) = cost(layer, (10, 5, 5)).layers
        assert (row.grain, row.mao_bits, row.file_bytes) == (grain, mao, file)


def test_parameters_of_computed_weights_count_once() -> None:
    model = models.create("resnet8", num_classes=10)
    every = sum(p.numel() for p in model.parameters())
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    for conv in convs:
        prune.l1_unstructured(conv, "weight", 0.5)
    found = cost(model, IMAGE).to_dict()
    assert (found["parameters"], every) == (78_042, 78_042)
    assert found["living_parameters"] == every - sum(m.weight.numel() // 2 for m in convs)
    for norm in (parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.weight_norm):
        net = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), norm(nn.Conv2d(4, 4, 3)), nn.BatchNorm2d(4))
        assert cost(net, (3, 8, 8)).parameters == 108 + 4 + 144 + 4 + 8, norm


def test_tied_weights_are_parameters_once() -> None:
    one, two = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    two.weight = one.weight
    one.weight.data[0] = 0
    found = cost(nn.Sequential(one, two), (4, 8, 8)).to_dict()
    assert (found["parameters"], found["living_parameters"], found["all"]["weights"]) == (16 + 8, 12 + 8, 32)
