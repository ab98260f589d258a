"""Kernels generated from the tap patterns that a layer has, in the format chwn."""
