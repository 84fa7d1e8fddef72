"""Losses with interactions: what is found and proved, and its worth: `python -m benchmarks.interactions`."""
