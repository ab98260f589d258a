"""The configuration of a run: one schema for the file, the flags and the Python call (floor 0: no torch).

>>> config, origins = load(from_flags({"epochs": 9, "sparsity": 0.8}))
>>> config.pruning.era_start, origins["pruning.era_start"], origins["pruning.sparsity"]
(3.0, 'derived', 'flag')
"""

from campfire.config.completion import derived, prunes
from campfire.config.layers import Layer, differences, from_file, from_flags, from_sets, from_tree, merge, to_yaml
from campfire.config.pinned import pinned
from campfire.config.schema import FLAGS, OPTIONS, SECTIONS, Config, Section, aliases_of, flag_of

__all__ = [
    "FLAGS",
    "OPTIONS",
    "SECTIONS",
    "Config",
    "Layer",
    "Section",
    "aliases_of",
    "differences",
    "flag_of",
    "from_file",
    "from_flags",
    "from_sets",
    "from_tree",
    "load",
    "merge",
    "pinned",
    "prunes",
    "to_yaml",
]


def load(*layers: Layer) -> tuple[Config, dict[str, str]]:
    """The complete configuration of these layers, the last one winning, and the origin of every value not a default.

    Raises:
        UsageError: an unknown key, a value out of range, or an era that does not end within the epochs.
    """
    config, _ = merge(layers)
    return merge([*layers, derived(config)])
