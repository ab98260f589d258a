"""VGG with batch normalisation and torchvision's state-dict keys (floor 1).

Very Deep Convolutional Networks, Simonyan and Zisserman, ICLR 2015 (arXiv 1409.1556). Docstrings give trainable
parameters and the multiply-accumulates of one image (FLOPs are twice that).
"""

from torch import Tensor, nn


def _features(widths: tuple[tuple[int, ...], ...], inputs: int, small_input: bool) -> nn.Sequential:
    """Stages of 3x3 convolutions, each closed by a pooling that halves the image."""
    layers: list[nn.Module] = []
    for stage in widths:
        for outputs in stage:
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            inputs = outputs
        # Rounding up changes nothing at 32 or 64 pixels, and lets 28 (MNIST) survive five halvings.
        layers.append(nn.MaxPool2d(2, ceil_mode=small_input))
    return nn.Sequential(*layers)


def _classifier(inputs: int, hidden: int, num_classes: int) -> nn.Sequential:
    def layer(outputs: int) -> list[nn.Module]:
        return [nn.Linear(outputs, hidden), nn.ReLU(inplace=True), nn.Dropout(0.5)]

    return nn.Sequential(*layer(inputs), *layer(hidden), nn.Linear(hidden, num_classes))


class VGG(nn.Module):
    """Convolutions ``features`` and three linear layers ``classifier``: [N, C, H, W] -> [N, num_classes].

    ``small_input`` (images of about 64 pixels or less) averages the last features to 1x1 and has 512 hidden units in
    the classifier where the paper has 7x7 and 4096: 9.8 M parameters instead of 132.9 M in VGG-11.

    >>> import torch
    >>> net = VGG(((8,), (16,)), num_classes=5, in_channels=1, small_input=True)
    >>> tuple(net(torch.zeros(2, 1, 28, 28)).shape)
    (2, 5)
    """

    def __init__(
        self,
        widths: tuple[tuple[int, ...], ...],
        num_classes: int = 1000,
        in_channels: int = 3,
        small_input: bool = False,
    ):
        super().__init__()
        size, hidden = (1, 512) if small_input else (7, 4096)
        self.features = _features(widths, in_channels, small_input)
        self.avgpool = nn.AdaptiveAvgPool2d(size)
        self.classifier = _classifier(widths[-1][-1] * size * size, hidden, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg11_bn(num_classes: int = 1000, in_channels: int = 3, small_input: bool = False) -> VGG:
    """VGG-11 with BN: 132,868,840 parameters, 7.61 GMAC at 224x224."""
    return VGG(((64,), (128,), (256, 256), (512, 512), (512, 512)), num_classes, in_channels, small_input)


def vgg13_bn(num_classes: int = 1000, in_channels: int = 3, small_input: bool = False) -> VGG:
    """VGG-13 with BN: 133,053,736 parameters, 11.31 GMAC at 224x224."""
    return VGG(((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)), num_classes, in_channels, small_input)


def vgg16_bn(num_classes: int = 1000, in_channels: int = 3, small_input: bool = False) -> VGG:
    """VGG-16 with BN: 138,365,992 parameters, 15.47 GMAC at 224x224."""
    return VGG(((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3), num_classes, in_channels, small_input)
