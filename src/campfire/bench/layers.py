"""The convolutions of a network as a benchmark sees them: sizes and how often each occurs."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from campfire import models
from campfire.kernels import Conv


@dataclass(frozen=True)
class Layer:
    """One shape of convolution; ``count`` layers of the network have it."""

    shape: tuple[int, int, int, int]  # [K, C, R, S]
    size: tuple[int, int]  # of the input
    conv: Conv
    count: int = 1

    def __str__(self) -> str:
        k, c, r, s = self.shape
        return f"{c}->{k} {r}x{s}/{self.conv.stride} @{self.size[0]}"

    @property
    def kind(self) -> str:
        """Its taps: ``3x3``."""
        return f"{self.shape[2]}x{self.shape[3]}"

    @property
    def pointwise(self) -> bool:
        """Whether it is 1x1."""
        return self.shape[2:] == (1, 1)


def layers_of(model: str = "resnet50", size: int = 224) -> list[Layer]:
    """The different convolutions of a model with groups = 1, without the first, in the order they run.

    >>> print(layers_of()[1], sum(layer.count for layer in layers_of()))
    64->64 3x3/1 @56 52
    """
    with torch.device("meta"):
        net = models.create(model, num_classes=1000).eval()
    seen: Counter[Layer] = Counter()

    def note(module: nn.Conv2d, given: tuple[Tensor, ...]) -> None:
        height, width = given[0].shape[2:]
        conv = Conv(module.stride[0], int(module.padding[0]), module.dilation[0], module.groups)
        seen[Layer(tuple(module.weight.shape), (height, width), conv)] += 1  # pyright: ignore[reportArgumentType]

    for module in [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups == 1][1:]:
        module.register_forward_pre_hook(note)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        net(torch.empty(1, 3, size, size, device="meta"))
    return [Layer(x.shape, x.size, x.conv, count) for x, count in seen.items()]
