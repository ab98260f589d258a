"""Kernels for any mask, and the layers between them, in the format chwn: one image a lane."""
