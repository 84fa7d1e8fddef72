"""`python -m benchmarks.profilers`."""

import sys

from benchmarks.profilers.run import main

if __name__ == "__main__":
    sys.exit(main())
