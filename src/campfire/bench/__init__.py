"""Benchmarks a user can run: what is compared runs interleaved, in one process, and medians are reported (floor 8)."""
