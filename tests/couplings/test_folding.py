"""Where a constant goes, what stays with every reader, and what the masks learn."""

import pytest
import torch
import torch.nn.functional as F
from coupling_nets import Forward, check_exact, images, kill, lively, reasons
from torch import nn
from torch.optim.swa_utils import AveragedModel

from campfire.couplings import eliminate_
from campfire.errors import DoesNotFit, UnknownName
from campfire.mask import Mask


def test_a_second_reader_that_refuses_keeps_only_its_own_weights():
    def forward(self, x):
        y = self.conv(x)
        return self.folds(y).mean((2, 3)) + self.pads(y).mean((2, 3)) + F.softmax(y, 1).sum((1, 2, 3))[:, None]

    model = Forward(forward, conv=nn.Conv2d(3, 4, 1), folds=nn.Conv2d(4, 5, 1), pads=nn.Conv2d(4, 5, 3, padding=1))
    kill(lively(model).conv, 1)
    why = reasons(check_exact(model, images()))
    assert why["conv", 1, "folds"] is None
    assert why["conv", 1, "pads"].startswith("zero padding")
    assert "softmax" in why["conv", 1, "softmax"]


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_and_depthwise_readers(groups: int):
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, groups=groups), nn.ReLU(), nn.Conv2d(8, 5, 1)))
    kill(model[0], 3)
    report = check_exact(model, images())
    assert report.channels[0].freed == 8 // groups * 9
    if groups == 4:  # a depthwise channel has nothing else to read: it dies, and so do its own readers
        assert [(c.layer, c.channel, c.freed) for c in report.channels[1:]] == [("1", 6, 5), ("1", 7, 5)]


def test_a_layer_whose_inputs_all_die_is_dead_itself():
    model = lively(nn.Sequential(nn.Conv2d(3, 2, 1), nn.SiLU(), nn.Conv2d(2, 4, 3), nn.SiLU(), nn.Conv2d(4, 6, 1)))
    kill(model[0], 0)
    with torch.no_grad():
        model[2].weight[1:3, 1] = 0  # outputs 1 and 2 read only the dead channel
    report = check_exact(model, images())
    assert [(c.layer, c.channel) for c in report.channels] == [("0", 0), ("2", 1), ("2", 2)]
    assert report.freed == 4 * 9 + 2 * 6
    assert "0 -> 2: 1 channel, 36 weights freed" in str(report)


def test_every_output_of_a_linear_layer_keeps_its_strongest_input():
    model = lively(nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 4), nn.Linear(4, 3)))
    kill(model[1], *range(6))
    model[1].bias.data.fill_(0.3)
    strongest = model[2].weight.abs().argmax(1)
    report = check_exact(model, images())
    assert torch.equal(model[2].weight.count_nonzero(1), torch.ones(4, dtype=torch.long))
    assert torch.equal(model[2].weight.abs().argmax(1), strongest)
    assert model[3].weight.count_nonzero(1).tolist() == [1, 1, 1]  # its inputs are constants all the same
    kept = {c.channel for c in report.refused if c.layer == "1"}
    assert kept == set(strongest.tolist())
    assert all("last living input" in c.reason for c in report.refused if c.consumer in "23")


def test_batch_norm_over_tokens_takes_no_constant():
    """Here batch normalisation counts tokens as channels, and there are as many of either."""

    def forward(self, x):
        return self.norm(self.down(self.up(x.flatten(2).transpose(1, 2))))

    parts = {"up": nn.Linear(3, 6), "down": nn.Linear(6, 64, bias=False), "norm": nn.BatchNorm1d(64)}
    model = lively(Forward(forward, **parts))
    kill(model.up, 2)
    assert check_exact(model, images()).new_biases == ["down"]


def test_a_running_mean_with_a_second_reader_beside_it_stays():
    def forward(self, x):
        y = self.b(self.a(x))
        return self.norm(y) + 2 * y

    model = Forward(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 5, 1, bias=False), norm=nn.BatchNorm2d(5))
    kill(lively(model).a, 2)
    assert check_exact(model, images()).new_biases == ["b"]


def test_where_the_constant_goes():
    """An own bias, else the running mean behind, else a bias is added; a zero needs no place."""

    def build(bias: bool, behind: nn.Module) -> nn.Module:
        return lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1, bias=bias), behind, nn.Conv2d(5, 2, 1)))

    for bias, behind, new in [(True, nn.BatchNorm2d(5), []), (False, nn.BatchNorm2d(5), []), (False, nn.ReLU(), ["1"])]:
        model = build(bias, behind)
        kill(model[0], 2)
        keys = set(model.state_dict())
        mean = getattr(behind, "running_mean", torch.zeros(1)).clone()
        assert check_exact(model, images()).new_biases == new
        assert set(model.state_dict()) - keys == {f"{name}.bias" for name in new}
        assert torch.equal(mean, getattr(behind, "running_mean", mean)) is not (not bias and not new)
        assert model[1].bias is None or model[1].bias.requires_grad
    model = build(False, nn.ReLU())
    kill(model[0], 2)
    model[0].bias.data[2] = 0
    report = check_exact(model, images())
    assert (report.freed, report.new_biases) == (5, [])


def test_an_own_forward_pass_gets_no_new_bias():
    class Centred(nn.Conv2d):
        def forward(self, x):
            return F.conv2d(x, self.weight)

    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), Centred(4, 5, 1, bias=False)))
    kill(model[0], 1)
    report = check_exact(model, images())
    assert report.freed == 0
    assert "no bias" in report.channels[0].reason


def test_masks_say_what_is_dead_and_learn_what_went():
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(180, 6)))
    kill(model[0], 1, 2)
    kill(model[1], 3)
    masks = {"0": Mask(torch.ones(4, 3, 1, 1, dtype=torch.bool)), "1": Mask(torch.ones(5, 4, 3, 3, dtype=torch.bool))}
    masks["0"].keep[1] = masks["1"].keep[3] = False  # channel 2 of the first layer may still train
    report = check_exact(model, images(), masks=masks)
    assert [(c.layer, c.channel, c.freed) for c in report.channels] == [("0", 1, 36), ("1", 3, 36 * 6)]
    assert set(report.masks) == {"1", "3"}
    assert report.masks["3"].keep.shape == (6, 180, 1, 1)
    assert not report.masks["1"].keep[:, 1].any()
    assert report.masks["1"].keep[0, 2].all()
    assert not report.masks["3"].keep[:, 108:144].any()
    assert masks["1"].keep[:, 1].sum() == 36  # the masks given are left alone
    again = check_exact(model, images(), masks={**masks, **report.masks})
    assert (again.freed, again.masks) == (0, {})


def test_masks_that_are_not_applied_yet_kill_nothing():
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3)))
    assert check_exact(model, images(), masks={"0": Mask(torch.zeros(4, 3, 1, 1, dtype=torch.bool))}).channels == []


def test_the_last_input_is_a_living_one_although_it_is_zero():
    model = lively(nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Linear(6, 4)))
    kill(model[1], *range(6))
    kill(model[2], 1)
    masks = {
        "1": Mask(torch.zeros(6, 192, 1, 1, dtype=torch.bool)),
        "2": Mask(torch.ones(4, 6, 1, 1, dtype=torch.bool)),
    }
    masks["2"].keep[1, :3] = False
    report = check_exact(model, images(), masks=masks)
    assert report.masks["2"].keep.flatten(1).sum(1).tolist() == [1, 1, 1, 1]
    assert not (report.masks["2"].keep & ~masks["2"].keep).any()


def test_without_masks_a_zero_is_dead_and_no_mask_is_made():
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3)))
    kill(model[0], 1)
    report = check_exact(model, images())
    assert (report.freed, report.masks) == (45, {})
    assert check_exact(model, images()).freed == 0


def three_dead(wrap: str = "") -> tuple[nn.Module, dict[str, Mask]]:
    """The first 3 of 8 channels are dead, by a mask under the name that a pruner gives the layer."""
    model = lively(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=wrap != "no bias")))
    kill(model[0], 0, 1, 2)
    keep = torch.ones(8, 3, 3, 3, dtype=torch.bool)
    keep[:3] = False
    if wrap == "averaged":
        return AveragedModel(model), {"0": Mask(keep)}
    if wrap == "whole":
        return torch.compile(model, backend="eager"), {"0": Mask(keep)}
    for part in {"part": [0], "parts": [0, 2], "no bias": [0, 2]}.get(wrap, []):
        model[part] = torch.compile(model[part], backend="eager")
    return model, {"0": Mask(keep)}


@pytest.mark.parametrize("wrap", ["", "part", "parts", "no bias", "whole", "averaged"])
def test_masks_find_their_layers_whatever_is_wrapped(wrap: str):
    model, masks = three_dead(wrap)
    report = eliminate_(model, images(), masks=masks)
    assert report.freed == 3 * 4 * 9
    assert report.masks.keys() == {"2"}
    assert not report.masks["2"].keep[:, :3].any()
    assert {(c.layer, c.consumer) for c in report.channels} == {("0", "2")}
    assert report.new_biases == (["2"] if wrap == "no bias" else [])
    raw = next(name for name, module in model.named_modules() if type(module) is nn.Conv2d)
    again, _ = three_dead(wrap)
    assert eliminate_(again, images(), masks={raw: masks["0"]}).freed == 3 * 4 * 9


@pytest.mark.parametrize("wrap", ["parts", "no bias"])
def test_logits_stay_where_parts_are_compiled(wrap: str):
    model, masks = three_dead(wrap)
    with torch.no_grad():
        before = model.eval()(images())
        eliminate_(model, images(), masks=masks)
        torch.testing.assert_close(model(images()), before)
    bare, _ = three_dead("" if wrap == "parts" else "no bias")
    assert len([*model.parameters()]) == len([*bare.parameters()]) + (wrap == "no bias")


def test_a_mask_by_a_second_name_of_its_layer():
    model, masks = three_dead()
    again = Forward(lambda self, x: self.body(x), body=model)
    again.first = model[0]
    assert eliminate_(again, images(), masks={"first": masks["0"]}).freed == 3 * 4 * 9


def test_masks_that_no_layer_finds_are_refused():
    model, masks = three_dead()
    with pytest.raises(UnknownName, match=r"no layer with a weight is called 'nonsense'.* Known: 0, 2\."):
        eliminate_(model, images(), masks={"nonsense": masks["0"]})
    with pytest.raises(UnknownName, match="'1'"):  # ReLU
        eliminate_(model, images(), masks={"1": masks["0"]})
    wrong = Mask(torch.ones(8, 3, 1, 1, dtype=torch.bool))
    with pytest.raises(DoesNotFit, match=r"(?s)\[8, 3, 1, 1\].*'0'.*\[8, 3, 3, 3\]"):
        eliminate_(model, images(), masks={"0": wrong})
    assert eliminate_(model, images(), masks=masks).freed == 3 * 4 * 9
