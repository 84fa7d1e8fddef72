"""Packing and unpacking weights: how fast, against what, and in how much memory: `python -m benchmarks.packing`."""
