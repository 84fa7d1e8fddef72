"""How good the statistics of sensitivity are, and what they cost: `python -m benchmarks.profilers`."""
