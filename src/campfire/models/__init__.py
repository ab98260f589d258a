"""The model zoo: CNNs by name, with torchvision's state-dict keys (floor 1; torch is loaded when a model is made)."""

from numbers import Integral
from typing import TYPE_CHECKING, Any

from campfire.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

ZOO = {
    **dict.fromkeys(("resnet8", "resnet20", "resnet32", "resnet56"), "resnet"),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet50_v1", "resnet101"), "resnet"),
    **dict.fromkeys(("vgg11_bn", "vgg13_bn", "vgg16_bn"), "vgg"),
}  # model -> the file of this folder that has it


def names() -> list[str]:
    """The models built in; `create` also takes ``torchvision/NAME``, ``timm/NAME`` and ``package.module:factory``.

    >>> names()[:4]
    ['resnet8', 'resnet20', 'resnet32', 'resnet56']
    """
    return list(ZOO)


def create(
    name: str, *, num_classes: int, in_channels: int = 3, small_input: bool = False, **options: Any
) -> "nn.Module":
    """A model with fresh weights, from images [N, in_channels, H, W] to logits [N, num_classes].

    ==========================  =========================================================================
    ``resnet18|34|50|101``      ImageNet ResNets; 50 and 101 are **v1.5** (stride in the 3x3)
    ``resnet50_v1``             the paper's **v1** (stride in the first 1x1)
    ``resnet8|20|32|56``        CIFAR ResNets; option ``width`` multiplies their channels 16, 32, 64
    ``vgg11_bn|13_bn|16_bn``    VGG with batch normalisation
    ``torchvision/NAME``        a torchvision classifier (GoogLeNet and Inception without auxiliary outputs)
    ``timm/NAME``               a timm model
    ``package.module:factory``  your own: called with ``num_classes`` and the options, and with
                                ``in_channels`` and ``small_input`` where it takes them
    ==========================  =========================================================================

    Args:
        name: one of the above.
        num_classes: number of logits, at least 1.
        in_channels: channels of an image, at least 1.
        small_input: for images of about 64 pixels or less: ResNets get a 3x3 stride-1 stem without pooling, VGGs a
            compact classifier. The CIFAR ResNets are always so.
        options: further arguments of the model.

    Raises:
        UnknownName: there is no such model; the nearest name is suggested.
        UsageError: no such number of classes or channels, an argument the model does not take, or a package that is missing
            or does not fit this torch.

    >>> model = create("resnet20", num_classes=10, width=2)
    >>> sum(p.numel() for p in model.parameters())
    1084586
    """
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise UsageError(f"{argument} must be a whole number, 1 or more; got {value!r}")
        if value < 1:
            raise UsageError(f"{argument} must be at least 1; got {value}")
    from campfire.models import sources

    options = {"num_classes": num_classes, "in_channels": in_channels, "small_input": small_input, **options}
    return sources.build(name, options)
