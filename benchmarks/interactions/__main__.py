"""`python -m benchmarks.interactions`."""

import sys

from benchmarks.interactions.run import main

if __name__ == "__main__":
    sys.exit(main())
