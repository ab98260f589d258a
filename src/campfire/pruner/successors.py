"""Successors: a pruner that is attached where another one is takes its place, as when a notebook's cell is run again."""

import warnings
import weakref
from typing import TYPE_CHECKING

from torch import nn

from campfire.errors import NoEffect

if TYPE_CHECKING:
    from campfire.pruner.pruner import Pruner

_last: "weakref.WeakKeyDictionary[nn.Module, weakref.ref[Pruner]]" = weakref.WeakKeyDictionary()


def release_others(pruner: "Pruner") -> None:
    """Detach whatever else is attached to layers of this one, with a warning: two would undo each other's masks."""
    modules = [layer.target.module for layer in pruner.layers.values()]
    others = {id(other): other for m in modules if (held := _last.get(m)) and (other := held()) is not None}
    for other in others.values():
        if other is not pruner and other._binding is not None:
            other.detach()
            warnings.warn("another pruner was attached to these layers; it is detached now", NoEffect, stacklevel=3)
    _last.update((module, weakref.ref(pruner)) for module in modules)
