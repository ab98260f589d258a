"""Couplings: logits stay, everything else that is said to go is gone, and what cannot be exact is refused by name."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from campfire import models
from campfire.couplings import CouplingReport, constants, eliminate_, find_dead, reading
from campfire.errors import UsageError
from campfire.mask import Mask

BORDER = "zero padding"


class Block(nn.Module):
    """A residual bottleneck; ``conv2`` is 3x3 and padded."""

    def __init__(self, channels: int = 6):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x
        return self.relu(out)


class Forward(nn.Module):
    """A model written as a function of its parts."""

    def __init__(self, forward, **parts: nn.Module):
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv_bn(inputs: int, outputs: int, **options) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def vgg() -> nn.Sequential:
    pool = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
    features = nn.Sequential(*conv_bn(3, 6, padding=1), nn.MaxPool2d(2, padding=1), *conv_bn(6, 8), pool)
    head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 9, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 5))
    return nn.Sequential(features, head)


def vgg_with_a_dead_channel() -> tuple[nn.Sequential, float]:
    """Channel 2 of the second convolution is dead, and its constant is not zero after batch normalisation and ReLU."""
    model = lively(vgg())
    kill(model[0][4], 2)
    bn = model[0][5]
    bn.bias.data[2] = 1.5 + (bn.running_mean * bn.weight / (bn.running_var + bn.eps).sqrt())[2]
    return model, 1.5


def resnet() -> nn.Sequential:
    return nn.Sequential(
        *conv_bn(3, 6, padding=1), Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    )


def flatten_fc() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(3 * 64, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 5)
    )


def alexnet() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 1), nn.LeakyReLU(0.1)),
        *(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Dropout(), nn.Linear(8 * 36, 10), nn.ReLU(), nn.Linear(10, 5)),
    )


NETS = {"vgg": vgg, "resnet": resnet, "flatten_fc": flatten_fc, "alexnet": alexnet}


@torch.no_grad()
def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, and batch normalisations whose statistics and affine parts matter."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in itertools.chain(model.parameters(), model.buffers()):
        if tensor.dim():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (0.7 if tensor.dim() == 1 else 0.3))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.track_running_stats:
            module.running_var.abs_().add_(0.5)
    return model


@torch.no_grad()
def kill(layer: nn.Module, *channels: int) -> None:
    layer.weight[list(channels)] = 0


def images(size: int = 8) -> Tensor:
    return torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    return copy.deepcopy(model).eval()(x.clone())


def check_exact(model: nn.Module, x: Tensor, **options) -> CouplingReport:
    """`eliminate_`, and the result is as close to the float64 model as the dense float32 model was."""
    truth = logits(copy.deepcopy(model).double(), x.double())
    own = (logits(model, x) - truth).abs().max()
    report = eliminate_(model, x, **options)
    assert (logits(model, x) - truth).abs().max() <= 4 * max(own, torch.finfo(x.dtype).eps * truth.abs().max())
    return report


def reasons(report: CouplingReport) -> dict[tuple[str, int, str], str | None]:
    return {(c.layer, c.channel, c.consumer): c.reason for c in report.channels}


@torch.no_grad()
def disturb(model: nn.Module, report: CouplingReport) -> None:
    """Revive every channel that nobody is said to read any more."""
    for layer, channel in {(c.layer, c.channel) for c in report.channels} - {
        (c.layer, c.channel) for c in report.refused
    }:
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


FLATTENS = {
    "flatten": lambda x: torch.flatten(x, 1),
    "view": lambda x: x.view(x.size(0), -1),
    "reshape": lambda x: x.reshape(len(x), 4 * 36),
    "two steps": lambda x: x.flatten(2).contiguous().flatten(1),
}


@pytest.mark.parametrize("spelling", FLATTENS)
def test_every_spelling_of_a_spatial_flatten(spelling: str):
    def forward(self, x):
        return self.fc(F.dropout(FLATTENS[spelling](self.pool(self.conv(x).relu())), training=self.training))

    model = lively(Forward(forward, conv=nn.Conv2d(3, 4, 3), pool=nn.AdaptiveAvgPool2d(6), fc=nn.Linear(4 * 36, 5)))
    model.conv.bias.data[1] = 0.7
    kill(model.conv, 1)
    report = check_exact(model, images())
    assert [(c.channel, c.freed, c.reason) for c in report.channels] == [(1, 36 * 5, None)]


@pytest.mark.parametrize(
    ("options", "value", "folds"),
    [
        ({}, 0.7, True),
        ({"padding": "valid"}, 0.7, True),
        ({"padding": 1}, 0.7, False),
        ({"padding": (0, 1)}, 0.7, False),
        ({"padding": "same"}, 0.7, False),
        ({"padding": 1}, 0.0, True),
        ({"padding": 1, "padding_mode": "circular"}, 0.7, True),
        ({"padding": 1, "padding_mode": "reflect"}, 0.7, True),
        ({"stride": 2, "dilation": 2}, 0.7, True),
    ],
)
def test_a_padded_convolution_takes_no_constant_but_zero(options: dict, value: float, folds: bool):
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 5, 3, **options)))
    kill(model[0], 2)
    model[0].bias.data[2] = value
    (channel,) = check_exact(model, images()).channels
    assert channel.value == pytest.approx(value)
    assert channel.freed == (45 if folds else 0)
    assert (channel.reason is None) if folds else channel.reason.startswith(BORDER)


@pytest.mark.parametrize(
    ("pool", "value", "folds"),
    [
        (nn.AvgPool2d(2), 0.7, True),
        (nn.AvgPool2d(3, 2, padding=1), 0.7, False),
        (nn.AvgPool2d(3, 2, padding=1), 0.0, True),
        (nn.AvgPool2d(3, 2, padding=1, count_include_pad=False), 0.7, True),
        (nn.AvgPool2d(3, 2, ceil_mode=True), 0.7, True),
        (nn.AvgPool2d(2, divisor_override=3), 0.7, False),
        (nn.MaxPool2d(3, 2, padding=1), -0.7, True),
        (nn.MaxPool2d(3, 2, padding=1, ceil_mode=True), -0.7, True),
        (nn.AdaptiveAvgPool2d(3), 0.7, True),
        (nn.AdaptiveMaxPool2d(3), 0.7, True),
        (nn.ZeroPad2d(1), 0.7, False),
        (nn.ZeroPad2d(1), 0.0, True),
        (nn.ReflectionPad2d(1), 0.7, True),
        (nn.Upsample(scale_factor=2), 0.7, True),
        (nn.LocalResponseNorm(2), 0.7, False),
        (nn.GroupNorm(2, 4), 0.7, False),
        (nn.BatchNorm2d(4, track_running_stats=False), 0.7, False),
        (nn.Softmax2d(), 0.7, False),
    ],
    ids=str,
)
def test_what_survives_between_the_layers(pool: nn.Module, value: float, folds: bool):
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), pool, nn.Conv2d(4, 5, 1)))
    kill(model[0], 2)
    model[0].bias.data[2] = value
    report = check_exact(model, images())
    assert report.freed == (5 if folds else 0)
    assert {c.reason is None for c in report.channels} == {folds}


POINTWISE = (
    *(
        nn.ReLU(),
        nn.ReLU6(),
        nn.Hardswish(),
        nn.SiLU(inplace=True),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.Sigmoid(),
        nn.Tanh(),
    ),
    *(nn.LeakyReLU(0.2), nn.ELU(), nn.SELU(), nn.CELU(), nn.Mish(), nn.Softplus(), nn.Softsign(), nn.Hardsigmoid()),
    *(
        nn.Hardtanh(),
        nn.LogSigmoid(),
        nn.Softshrink(),
        nn.Hardshrink(),
        nn.Tanhshrink(),
        nn.PReLU(4),
        nn.Threshold(0.1, 2),
    ),
    *(nn.Identity(), nn.Dropout(), nn.Dropout2d(), nn.AlphaDropout()),
)


@pytest.mark.parametrize("activation", POINTWISE, ids=str)
def test_constants_pass_through_activations(activation: nn.Module):
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Conv2d(4, 5, 1)))
    kill(model[0], 0, 1)
    model[0].bias.data[:2] = torch.tensor([0.6, -0.6])
    expected = (
        copy.deepcopy(activation).eval()(model[0].bias.detach().clone()[None, :, None, None])[0, :2].flatten().tolist()
    )
    report = check_exact(model, images())
    assert [c.value for c in report.channels] == pytest.approx(expected)
    assert [c.freed for c in report.channels] == [5, 5]


def mean_of_pixels(self, x):
    return self.fc(self.conv(x).mean((2, 3)))


def frozen_norm(self, x):
    return self.fc((self.conv(x) * self.scale.weight[:, None, None] + 0.5).amax((-2, -1)))


def gated(self, x):
    return self.fc((y := self.conv(x)).mul(torch.sigmoid(y)).mean((2, 3), keepdim=True).flatten(1))


@pytest.mark.parametrize("forward", [mean_of_pixels, frozen_norm, gated])
def test_functions_are_as_good_as_modules(forward):
    model = lively(Forward(forward, conv=nn.Conv2d(3, 4, 1), scale=nn.BatchNorm2d(4), fc=nn.Linear(4, 5)))
    kill(model.conv, 3)
    assert check_exact(model, images()).freed == 5


@pytest.mark.parametrize("op", [F.dropout, lambda x: F.rrelu(x, training=True)], ids=["dropout", "rrelu"])
def test_noise_is_never_constant(op):
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), Forward(lambda self, x: op(x)), nn.Conv2d(4, 5, 1)))
    kill(model[0], 1)
    assert "not known to keep" in find_dead(model, images())[0].reason


@pytest.mark.parametrize(
    "op",
    [
        lambda x: torch.cat([x.mean(1, keepdim=True)] * 4, 1),
        lambda x: torch.cat([x, x], 2),
        lambda x: x.flip(1).roll(1, 1),
    ],
)
def test_other_axes_are_refused(op):
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), Forward(lambda self, x: op(x)), nn.Conv2d(4, 5, 1)))
    kill(model[0], 1)
    assert check_exact(model, images()).freed == 0


def test_in_place_operations_do_not_fool_the_other_readers():
    def forward(self, x):
        y = self.conv(x)
        shifted = y.add_(self.other(x))  # y itself is no longer constant
        return self.reader(y) + shifted.mean()

    model = lively(Forward(forward, conv=nn.Conv2d(3, 4, 1), other=nn.Conv2d(3, 4, 1), reader=nn.Conv2d(4, 5, 1)))
    kill(model.conv, 1)
    assert check_exact(model, images()).freed == 0


def test_a_second_reader_that_refuses_keeps_only_its_own_weights():
    def forward(self, x):
        y = self.conv(x)
        return self.folds(y).mean((2, 3)) + self.pads(y).mean((2, 3)) + F.softmax(y, 1).sum((1, 2, 3))[:, None]

    model = Forward(forward, conv=nn.Conv2d(3, 4, 1), folds=nn.Conv2d(4, 5, 1), pads=nn.Conv2d(4, 5, 3, padding=1))
    kill(lively(model).conv, 1)
    why = reasons(check_exact(model, images()))
    assert why["conv", 1, "folds"] is None
    assert why["conv", 1, "pads"].startswith(BORDER)
    assert "softmax" in why["conv", 1, "softmax"]


def test_a_concatenation_along_the_channels_is_exact():
    def forward(self, x):
        return self.reader(torch.cat([self.left(x), x, self.right(x)], 1))

    model = Forward(forward, left=nn.Conv2d(3, 4, 1), right=nn.Conv2d(3, 4, 1), reader=nn.Conv2d(11, 5, 1))
    kill(lively(model).left, 1)
    kill(model.right, 0, 2)
    report = check_exact(model, images())
    assert [(c.layer, c.channel) for c in report.channels if c.reason is None] == [
        ("left", 1),
        ("right", 0),
        ("right", 2),
    ]
    assert model.reader.weight.any(0).flatten().logical_not().nonzero().flatten().tolist() == [1, 7, 9]


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


def test_tokens_are_read_along_the_last_axis():
    def forward(self, x):
        return self.down(F.gelu(self.up(x.flatten(2).transpose(1, 2))))

    model = lively(Forward(forward, up=nn.Linear(3, 64), down=nn.Linear(64, 5)))
    kill(model.up, 7)
    assert check_exact(model, images()).freed == 5


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


@pytest.mark.parametrize("case", ["module twice", "weight tied", "bias tied", "weight read elsewhere"])
def test_what_is_shared_is_not_edited(case: str):
    def forward(self, x):
        y = self.b(self.a(x))
        if case == "module twice":
            y = self.b(y)
        return y + self.b.weight.sum() if case == "weight read elsewhere" else self.c(y)

    model = lively(Forward(forward, a=nn.Conv2d(3, 4, 1), b=nn.Conv2d(4, 4, 1), c=nn.Conv2d(4, 4, 1)))
    if case == "weight tied":
        model.c.weight = model.b.weight
    if case == "bias tied":
        model.c.bias = model.b.bias
    kill(model.a, 2)
    report = check_exact(model, images())
    assert report.freed == 0
    assert "shared" in report.channels[0].reason


def test_a_module_under_two_names_is_not_shared():
    model = lively(Forward(lambda self, x: self.body(x), body=nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1))))
    model.again = model.body[1]
    kill(model.body[0], 1)
    assert reasons(check_exact(model, images())) == {("body.0", 1, "body.1"): None}


def test_a_buffer_that_moves_is_not_a_constant():
    def forward(self, x):
        self.steps += 1
        return self.reader(self.conv(x) * self.steps)

    model = lively(Forward(forward, conv=nn.Conv2d(3, 4, 1), reader=nn.Conv2d(4, 5, 1)))
    model.register_buffer("steps", torch.zeros(()))
    kill(model.conv, 1)
    assert eliminate_(model, images()).freed == 0
    assert model.steps == 0


def test_a_computed_weight_is_refused():
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)))
    kill(model[0], 1)
    prune.identity(model[1], "weight")
    with torch.no_grad():
        before = model(images())
        assert "computed" in eliminate_(model, images()).channels[0].reason
        assert torch.equal(model(images()), before)


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


def test_a_compiled_model_is_edited_under_its_plain_names():
    model = lively(vgg())
    kill(model[0][4], 2)
    assert eliminate_(torch.compile(model), images()).channels[0].layer == "0.4"
    assert not model[1][1].weight[:, 18:27].any()


def test_a_data_dependent_forward_pass_is_an_error(capfd):
    def forward(self, x):
        return self.conv(x) if x.sum() > 0 else x

    model = Forward(forward, conv=nn.Conv2d(3, 4, 1)).train()
    with pytest.raises(UsageError, match=r"Forward could not be traced on an example of shape \(4, 3, 8, 8\)") as error:
        eliminate_(model, images())
    assert "Cure:" in str(error.value)
    assert model.conv.training
    assert capfd.readouterr() == ("", "")


def test_a_wrong_example_is_an_error():
    with pytest.raises(UsageError, match="5 channels"):
        find_dead(nn.Conv2d(5, 4, 1), images())
    with pytest.raises(UsageError, match="SimpleNamespace"):
        find_dead(nn.Conv2d(5, 4, 1), (SimpleNamespace(),))
