"""Which calls keep a constant channel constant, and which are refused by name."""

import copy

import pytest
import torch
import torch.nn.functional as F
from coupling_nets import Forward, check_exact, images, kill, lively
from torch import nn

from campfire.couplings import find_dead

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
    assert (channel.reason is None) if folds else channel.reason.startswith("zero padding")


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


def test_tokens_are_read_along_the_last_axis():
    def forward(self, x):
        return self.down(F.gelu(self.up(x.flatten(2).transpose(1, 2))))

    model = lively(Forward(forward, up=nn.Linear(3, 64), down=nn.Linear(64, 5)))
    kill(model.up, 7)
    assert check_exact(model, images()).freed == 5


TOKENS = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(2))
ONE = {  # a layer of a single output, whose one constant is seen along an axis of 5
    "flatten": (lambda self, x: self.b(self.a(x).relu().flatten(1)), nn.Linear(8, 1), nn.Linear(5, 3)),
    "squeeze": (lambda self, x: self.b(self.a(x).squeeze(-1)), nn.Linear(8, 1), nn.Linear(5, 3)),
    "width": (lambda self, x: self.b(self.a(x.unsqueeze(1))), nn.Conv2d(1, 1, (1, 4)), nn.Linear(5, 3)),
    "mean": (lambda self, x: self.b(self.a(x).mean(2)), nn.Linear(8, 1), nn.Linear(5, 3)),
    "norm": (
        lambda self, x: self.b(self.a(x).flatten(1)),
        nn.Linear(8, 1),
        nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)),
    ),
}


@pytest.mark.parametrize("case", ONE)
def test_one_constant_for_a_whole_tensor(case: str):
    forward, dead, reader = ONE[case]
    model = lively(Forward(forward, a=copy.deepcopy(dead), b=copy.deepcopy(reader)))
    kill(model.a, 0)
    assert find_dead(model, TOKENS)
    report = check_exact(model, TOKENS)
    assert report.freed == 4 * 3  # every output keeps an input
    assert report.channels[0].channel == 0


def test_one_constant_for_a_whole_tensor_beside_others():
    def forward(self, x):
        return self.b(torch.cat([self.a(x).flatten(1), self.c(x[:, 0])], 1))

    model = lively(Forward(forward, a=nn.Linear(8, 1), c=nn.Linear(8, 3), b=nn.Linear(8, 3)))
    kill(model.a, 0)
    report = check_exact(model, TOKENS)
    assert report.freed == 5 * 3
    assert not model.b.weight[:, :5].any()
    assert model.b.weight[:, 5:].all()


def test_one_constant_that_a_layer_of_one_input_reads():
    model = lively(Forward(lambda self, x: self.b(self.a(x)), a=nn.Conv2d(3, 1, 1), b=nn.Conv2d(1, 4, 3)))
    kill(model.a, 0)
    assert check_exact(model, images()).freed == 36
