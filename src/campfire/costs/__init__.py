"""What a network costs: arithmetic, storage, memory references, balance and energy, counted on its masks (floor 3)."""

from campfire.costs.energy import Energy
from campfire.costs.expected import expected_references
from campfire.costs.grains import sparsity_by_grain, whole_grain
from campfire.costs.macs import flops, layer_macs, macs, sparse_macs
from campfire.costs.network import LayerCost, NetworkCost, cost
from campfire.costs.references import References
from campfire.costs.storage import bit_mask_bytes, storage_bits

__all__ = [
    "Energy",
    "LayerCost",
    "NetworkCost",
    "References",
    "bit_mask_bytes",
    "cost",
    "expected_references",
    "flops",
    "layer_macs",
    "macs",
    "sparse_macs",
    "sparsity_by_grain",
    "storage_bits",
    "whole_grain",
]
