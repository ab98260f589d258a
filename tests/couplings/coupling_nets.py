"""Small nets with dead channels, and the check that their logits stay to rounding."""

import copy
import itertools

import torch
from torch import Tensor, nn

from campfire.couplings import CouplingReport, eliminate_


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
