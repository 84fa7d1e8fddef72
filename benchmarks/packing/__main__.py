"""`python -m benchmarks.packing`."""

import sys

from benchmarks.packing.run import main

if __name__ == "__main__":
    sys.exit(main())
