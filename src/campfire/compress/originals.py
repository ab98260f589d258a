"""The dense layers that sparse ones stand for, put in their places for a moment: what a gain is a gain over."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from campfire.compress.places import places
from campfire.nn import SparseConv2d, SparseLinear


class Originals:
    """Dense twins of all sparse layers of a model, in channels_last; they share biases, and copy weights.

    >>> import torch
    >>> from campfire.mask import Mask
    >>> model = nn.Sequential(SparseLinear.of(nn.Linear(4, 4), Mask(torch.eye(4).bool()[:, :, None, None])), nn.ReLU())
    >>> with Originals(model).in_place() as dense:
    ...     print(type(dense[0]).__name__)
    Linear
    >>> print(type(model[0]).__name__)
    SparseLinear
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._pairs = [(m, _dense(m)) for m in model.modules() if isinstance(m, (SparseConv2d, SparseLinear))]
        self._places = [(*place, *pair) for pair in self._pairs for place in places(model, pair[0])]

    @contextlib.contextmanager
    def in_place(self) -> Iterator[nn.Module]:
        """The model with them."""
        if self._pairs and self._pairs[0][0] is self.model:  # the model is but a layer
            yield self._pairs[0][1]
            return
        try:
            for parent, name, _, dense in self._places:
                parent._modules[name] = dense
            yield self.model
        finally:
            for parent, name, sparse, _ in self._places:
                parent._modules[name] = sparse


def _dense(layer: SparseConv2d | SparseLinear) -> nn.Module:
    dense: Any = layer.dense()
    return dense.to(memory_format=torch.channels_last) if isinstance(layer, SparseConv2d) else dense
