"""Mask kernels for GPUs in Triton; nothing here is imported before a tensor on a GPU asks for it."""
