"""Which backend solves which problem how fast, every answer checked: `python -m benchmarks.solvers`."""
