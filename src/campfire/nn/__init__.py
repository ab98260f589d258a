"""Sparse layers: modules whose Parameter is the packed values, and whose state dict is the dense one."""

from campfire.nn.batchnorm import BatchNorm2d
from campfire.nn.conv import SparseConv2d
from campfire.nn.formats import keep_formats_, library_layers_
from campfire.nn.linear import SparseLinear
from campfire.nn.pooling import MaxPool2d

__all__ = ["BatchNorm2d", "MaxPool2d", "SparseConv2d", "SparseLinear", "keep_formats_", "library_layers_"]
