"""Layers between sparse ones: those of the library exchanged for those that keep the memory format, and back."""

from torch import nn

from campfire.nn.batchnorm import BatchNorm2d
from campfire.nn.pooling import MaxPool2d

OWN: dict[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: BatchNorm2d, nn.MaxPool2d: MaxPool2d}
LIBRARY = {own: library for library, own in OWN.items()}


def keep_formats_(model: nn.Module) -> nn.Module:
    """Make every `nn.BatchNorm2d` and `nn.MaxPool2d` of a model one that keeps images side by side where they are.

    Subclasses of them, and all other layers, stay as they are. Layers stay the same objects, with their parameters, hooks
    and places; the model is returned.

    >>> keep_formats_(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)))[1].__class__.__module__
    'campfire.nn.batchnorm'
    """
    return _exchanged(model, OWN)


def library_layers_(model: nn.Module) -> nn.Module:
    """The inverse of `keep_formats_`.

    >>> type(library_layers_(keep_formats_(nn.BatchNorm2d(8)))) is nn.BatchNorm2d
    True
    """
    return _exchanged(model, LIBRARY)


def keeps_formats(model: nn.Module) -> bool:
    """Whether any layer is one of `keep_formats_`.

    >>> keeps_formats(nn.BatchNorm2d(8)), keeps_formats(keep_formats_(nn.BatchNorm2d(8)))
    (False, True)
    """
    return any(type(layer) in LIBRARY for layer in model.modules())


def _exchanged(model: nn.Module, kinds: dict[type[nn.Module], type[nn.Module]]) -> nn.Module:
    for layer in model.modules():
        layer.__class__ = kinds.get(type(layer), type(layer))
    return model
