"""`python -m benchmarks.solvers`."""

import sys

from benchmarks.solvers.run import main

if __name__ == "__main__":
    sys.exit(main())
