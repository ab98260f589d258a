"""Pruner: rules choose the layers, phases say when, and the pruner keeps the masks true."""

from campfire.pruner.phases import Phase, inter_epoch
from campfire.pruner.pruner import Pruner
from campfire.pruner.rules import resolve, targets

__all__ = ["Phase", "Pruner", "inter_epoch", "resolve", "targets"]
