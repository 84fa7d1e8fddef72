"""Losses with interactions: what is found, what is proved, and what it is worth: `python -m benchmarks.interactions`."""
