"""Whole nets: logits stay, what is said to go is gone, and planted faults are caught."""

import copy

import pytest
import torch
from coupling_nets import NETS, check_exact, images, kill, lively, logits, reasons, resnet, vgg, vgg_with_a_dead_channel
from torch import Tensor, nn

from campfire import models
from campfire.couplings import CouplingReport, constants, eliminate_, find_dead, reading


@torch.no_grad()
def disturb(model: nn.Module, report: CouplingReport) -> None:
    """Revive every channel that nobody is said to read any more."""
    still_read = {(c.layer, c.channel) for c in report.refused}
    for layer, channel in {(c.layer, c.channel) for c in report.channels} - still_read:
        model.get_submodule(layer).weight[channel] += 1


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_logits_stay_whatever_dies(name: str, seed: int):
    model = lively(NETS[name](), seed)
    generator = torch.Generator().manual_seed(seed)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer in layers[:-1]:
        kill(layer, *(torch.rand(layer.weight.shape[0], generator=generator) < 0.4).nonzero().flatten().tolist())
    report = check_exact(model, images())
    assert any(c.freed and c.value for c in report.channels)
    before = logits(model, images())
    disturb(model, report)
    torch.testing.assert_close(logits(model, images()), before, rtol=0, atol=0)


def test_vgg_folds_through_pooling_and_flattening():
    model, expected = vgg_with_a_dead_channel()  # conv - BN - ReLU - average pool - flatten - linear
    keys = list(model.state_dict())
    (channel,) = check_exact(model, images()).channels
    assert (channel.layer, channel.channel, channel.consumer, channel.reason) == ("0.4", 2, "1.1", None)
    assert channel.value == pytest.approx(expected)
    assert channel.freed == 9 * 10
    assert list(model.state_dict()) == keys
    assert not model[1][1].weight[:, 18:27].any()
    assert model[1][1].weight[:, :18].all()
    assert model[1][1].weight[:, 27:].all()


def test_resnet_folds_inside_a_block_and_refuses_across_the_add():
    model = lively(resnet())
    kill(model[3].conv2, 1)
    kill(model[3].conv3, 4)
    kill(model[0], 3)
    with torch.no_grad():
        model[1].bias[3] = 2 + model[1].running_mean[3].abs() * 3
    keys, mean = list(model.state_dict()), model[3].bn3.running_mean.clone()
    report = check_exact(model, images())
    why = reasons(report)
    assert why["3.conv2", 1, "3.conv3"] is None
    assert why["0", 3, "3.conv1"] is None  # 1x1 without padding, although the shortcut reads the same channel
    assert "residual" in why["0", 3, "3:add"]
    assert "residual" in why["3.conv3", 4, "3:add"]
    assert report.new_biases == []
    assert list(model.state_dict()) == keys
    assert not torch.equal(model[3].bn3.running_mean, mean)


@pytest.mark.parametrize("name", ["resnet20", "vgg11_bn"])
def test_the_zoo(name: str):
    model = models.create(name, num_classes=10, small_input=True)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.bias.fill_(-0.2)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    for layer in layers:
        kill(layer, 0, 5)
    keys = list(model.state_dict())
    report = check_exact(model, images(32))
    assert report.new_biases == []
    assert list(model.state_dict()) == keys
    assert {c.consumer.split(":")[-1] for c in report.refused} == ({"add"} if name == "resnet20" else set())


def test_float64_models_stay_exact_in_float64():
    model = lively(vgg()).double()
    kill(model[0][4], 1, 5)
    before = logits(model, images().double())
    assert eliminate_(model, images().double()).freed > 0
    torch.testing.assert_close(logits(model, images().double()), before, rtol=1e-12, atol=1e-12)


def test_looking_changes_nothing_and_flags_come_back():
    model = lively(resnet()).train()
    model[3].bn2.eval()
    kill(model[3].conv2, 0)
    flags = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    assert find_dead(model, images()) == find_dead(model, (images(),))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    dead = find_dead(model, images())
    assert eliminate_(model, images()).channels == dead
    assert [module.training for module in model.modules()] == flags


def test_without_the_fold_the_logits_would_move():
    """The checks above see a difference only if dropping the weights alone makes one."""
    model, _ = vgg_with_a_dead_channel()
    before = logits(model, images())
    with torch.no_grad():
        model[1][1].weight[:, 18:27] = 0
    assert (logits(model, images()) - before).abs().max() > 0.05


def wrong_sign(self: reading.Reading, which: Tensor) -> Tensor:
    return -RIGHT_TOTAL(self, which)


def one_pixel_of_many(self: reading.Reading, which: Tensor) -> Tensor:
    first = torch.zeros_like(which)
    first[:, ::9] = which[:, ::9]
    return RIGHT_TOTAL(self, first)


def nothing(self: reading.Reading, which: Tensor) -> Tensor:
    return 0 * RIGHT_TOTAL(self, which)


RIGHT_TOTAL = reading.Reading.total


@pytest.mark.parametrize("fault", [wrong_sign, one_pixel_of_many, nothing])
def test_planted_faults_in_the_contribution_are_caught(monkeypatch, fault):
    model, _ = vgg_with_a_dead_channel()
    monkeypatch.setattr(reading.Reading, "total", fault)
    with pytest.raises(AssertionError):
        check_exact(model, images())


def test_planted_fault_in_batch_norm_is_caught(monkeypatch):
    model, _ = vgg_with_a_dead_channel()
    monkeypatch.setattr(constants, "_normalise", lambda node, state: state.get(node.args[0]))
    with pytest.raises(AssertionError):
        check_exact(model, images())


def test_planted_fault_in_the_padding_rule_is_caught(monkeypatch):
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, padding=1)))
    kill(model[0], 2)
    monkeypatch.setattr(reading, "is_padded", lambda padding: False)
    with pytest.raises(AssertionError):
        check_exact(model, images())
