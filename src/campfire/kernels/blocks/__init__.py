"""Kernels for blocks of 16 or more outputs, in NHWC: float32, bfloat16 by dot products, bfloat16 by tile products."""
