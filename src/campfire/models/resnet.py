"""ResNets with torchvision's state-dict keys, so that its weights and timm's load unmodified (floor 1).

Deep Residual Learning, He et al., CVPR 2016 (arXiv 1512.03385). *v1* is the paper's bottleneck, which halves the image
in the first 1x1 convolution; *v1.5* halves it in the 3x3, as torchvision and timm do. Docstrings give trainable
parameters and the multiply-accumulates of one image in convolutions and classifier (FLOPs are twice that).

The CIFAR nets (section 4.2 of the paper) have three stages of 16, 32 and 64 channels. Their shortcuts are 1x1
convolutions (option B) where the paper pads with zero channels (option A): every layer is then a module that can be
traced, exported, packed and counted, at 1 % more parameters in ResNet-20.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from campfire.errors import UsageError


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A projection where the shape changes (He's option B), else empty: no keys, and no node in a traced graph."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut: [N, inputs, H, W] -> [N, planes, H/stride, W/stride]."""

    expansion: ClassVar[int] = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1):
        super().__init__()
        self.conv1 = _conv(inputs, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 beside a shortcut, v1.5: [N, inputs, H, W] -> [N, 4 planes, H/stride, W/stride]."""

    expansion: ClassVar[int] = 4
    stride_in_1x1: ClassVar[bool] = False

    def __init__(self, inputs: int, planes: int, stride: int = 1):
        super().__init__()
        first, second = (stride, 1) if self.stride_in_1x1 else (1, stride)
        self.conv1 = _conv(inputs, planes, 1, first)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, second)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, planes * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))


class BottleneckV1(Bottleneck):
    """The paper's bottleneck: the stride is in the first 1x1 convolution."""

    stride_in_1x1 = True


Block = type[BasicBlock] | type[Bottleneck]


def _stages(block: Block, depths: Sequence[int], planes: Sequence[int]) -> list[nn.Sequential]:
    """Four stages, each but the first halving the image; those not asked for are empty and have no keys."""
    inputs, stages = planes[0], []
    for width, depth in zip(planes, depths, strict=True):
        outputs = width * block.expansion
        first = block(inputs, width, stride=2 if stages else 1)
        stages.append(nn.Sequential(first, *(block(outputs, width) for _ in range(depth - 1))))
        inputs = outputs
    return stages + [nn.Sequential() for _ in range(4 - len(stages))]


class ResNet(nn.Module):
    """A stem, up to four stages of residual blocks and a linear classifier: [N, C, H, W] -> [N, num_classes].

    ``depths`` and ``planes`` hold a stage each. ``small_input`` swaps the 7x7 stride-2 stem and its pooling, which
    shrink the image fourfold, for a 3x3 stride-1 convolution (images of about 64 pixels or less).

    >>> import torch
    >>> net = ResNet(BasicBlock, depths=(1, 1), num_classes=5, in_channels=1, small_input=True, planes=(8, 16))
    >>> tuple(net(torch.zeros(2, 1, 28, 28)).shape)
    (2, 5)
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        num_classes: int = 1000,
        in_channels: int = 3,
        small_input: bool = False,
        *,
        planes: Sequence[int] = (64, 128, 256, 512),
    ):
        super().__init__()
        size, stride = (3, 1) if small_input else (7, 2)
        self.conv1 = _conv(in_channels, planes[0], size, stride)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Sequential() if small_input else nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1, self.layer2, self.layer3, self.layer4 = _stages(block, depths, planes)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(planes[-1] * block.expansion, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def resnet18(num_classes: int = 1000, in_channels: int = 3, small_input: bool = False) -> ResNet:
    """ResNet-18: 11,689,512 parameters, 1.81 GMAC at 224x224."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes, in_channels, small_input)


def resnet34(num_classes: int = 1000, in_channels: int = 3, small_input: bool = False) -> ResNet:
    """ResNet-34: 21,797,672 parameters, 3.66 GMAC at 224x224."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes, in_channels, small_input)


def resnet50(num_classes: int = 1000, in_channels: int = 3, small_input: bool = False) -> ResNet:
    """ResNet-50 v1.5, as torchvision and timm have it: 25,557,032 parameters, 4.09 GMAC at 224x224.

    >>> block = resnet50(num_classes=10).layer2[0]
    >>> block.conv1.stride, block.conv2.stride
    ((1, 1), (2, 2))
    """
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes, in_channels, small_input)


def resnet50_v1(num_classes: int = 1000, in_channels: int = 3, small_input: bool = False) -> ResNet:
    """ResNet-50 v1, as the paper has it: 25,557,032 parameters, 3.86 GMAC at 224x224.

    >>> block = resnet50_v1(num_classes=10).layer2[0]
    >>> block.conv1.stride, block.conv2.stride
    ((2, 2), (1, 1))
    """
    return ResNet(BottleneckV1, (3, 4, 6, 3), num_classes, in_channels, small_input)


def resnet101(num_classes: int = 1000, in_channels: int = 3, small_input: bool = False) -> ResNet:
    """ResNet-101 v1.5: 44,549,160 parameters, 7.80 GMAC at 224x224."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes, in_channels, small_input)


def _cifar(depth: int, num_classes: int, in_channels: int, width: float) -> ResNet:
    """He's CIFAR net of 6 n + 2 layers, every channel count times ``width``."""
    if not (width > 0 and math.isfinite(width)):
        raise UsageError(f"width multiplies the channels 16, 32, 64 and must be a positive number; got {width}")
    planes = [max(1, round(channels * width)) for channels in (16, 32, 64)]
    depths = [(depth - 2) // 6] * 3
    return ResNet(BasicBlock, depths, num_classes, in_channels, small_input=True, planes=planes)


def resnet8(num_classes: int = 10, in_channels: int = 3, small_input: bool = True, width: float = 1.0) -> ResNet:
    """CIFAR ResNet-8: 78,042 parameters, 12.5 MMAC at 32x32, width 1; the stem is 3x3 whatever ``small_input``."""
    return _cifar(8, num_classes, in_channels, width)


def resnet20(num_classes: int = 10, in_channels: int = 3, small_input: bool = True, width: float = 1.0) -> ResNet:
    """CIFAR ResNet-20: 272,474 parameters, 40.8 MMAC at 32x32, width 1; the stem is 3x3 whatever ``small_input``.

    >>> resnet20(width=2).fc
    Linear(in_features=128, out_features=10, bias=True)
    """
    return _cifar(20, num_classes, in_channels, width)


def resnet32(num_classes: int = 10, in_channels: int = 3, small_input: bool = True, width: float = 1.0) -> ResNet:
    """CIFAR ResNet-32: 466,906 parameters, 69.1 MMAC at 32x32, width 1; the stem is 3x3 whatever ``small_input``."""
    return _cifar(32, num_classes, in_channels, width)


def resnet56(num_classes: int = 10, in_channels: int = 3, small_input: bool = True, width: float = 1.0) -> ResNet:
    """CIFAR ResNet-56: 855,770 parameters, 125.7 MMAC at 32x32, width 1; the stem is 3x3 whatever ``small_input``."""
    return _cifar(56, num_classes, in_channels, width)


def clicktrain_resnet32(num_classes: int = 10, in_channels: int = 3, small_input: bool = True) -> ResNet:
    """What ClickTrain (Zhang et al. 2021) calls ResNet-32: stages of 3, 4, 5 and 3 basic blocks of 64 to 512 channels.

    The stem is 3x3 whatever ``small_input``.

    >>> net = clicktrain_resnet32()
    >>> sum(m.weight.numel() for n, m in net.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n)
    19908288
    """
    return ResNet(BasicBlock, (3, 4, 5, 3), num_classes, in_channels, small_input=True)
