"""GPU kernels, in Triton: blocks for tensor cores, and what PyTorch itself offers there."""
