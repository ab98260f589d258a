"""Sparse layers: modules whose Parameter is the packed values, and whose state dict is the dense one."""

from campfire.nn.conv import SparseConv2d
from campfire.nn.linear import SparseLinear

__all__ = ["SparseConv2d", "SparseLinear"]
