"""See `benchmarks.compression.run`."""

import sys

from benchmarks.compression.run import main

if __name__ == "__main__":
    sys.exit(main())
