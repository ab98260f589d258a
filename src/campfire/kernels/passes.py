"""Passes: the kernels that serve one layer, under a number by which operators find them."""

import itertools
import weakref
from collections.abc import Callable

import torch

from campfire.errors import CampfireError
from campfire.kernels.base import Conv, Prepared
from campfire.kernels.reference import Dense

_numbers = itertools.count()


class Passes:
    """The kernels that serve one layer, pass by pass, and the format of what they return; kept alive by the layer.

    ``library``: where the dense library serves all of them, how it is reached.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        conv: Conv,
        value_shape: tuple[int, ...],
        forward: Prepared,
        format: str = "nhwc",
        d_input: Prepared | None = None,
        d_values: Prepared | None = None,
        library: Callable[[], Dense] | None = None,
    ):
        self.shape, self.conv, self.value_shape, self.format = shape, conv, value_shape, format
        self.forward, self.d_input, self.d_values = forward, d_input or forward, d_values or forward
        self.library = library
        self.number = next(_numbers)
        _layers[self.number] = self


_layers: "weakref.WeakValueDictionary[int, Passes]" = weakref.WeakValueDictionary()


def numbered(number: int) -> Passes:
    """Those of a layer that lives.

    Raises:
        CampfireError: it is gone, or has other kernels by now.
    """
    try:
        return _layers[number]
    except KeyError:
        raise CampfireError(
            "a compressed layer was moved, tuned or deleted since this program was made; compile or trace the model anew"
        ) from None


def living(number: int) -> Passes | None:
    """The same, for an autograd graph to keep: it may outlive its layer. Compiled graphs cannot."""
    return None if torch.compiler.is_compiling() else numbered(number)
