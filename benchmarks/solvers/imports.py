"""A fresh process that imports the package, finds one solver and says how long that took (JSON on stdout)."""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Import, discover, print: argv[1] is the solver's registry name."""
    cpu, wall = time.process_time(), time.perf_counter()
    import allocator
    from allocator import registry

    solve = allocator.solve
    kind = registry.find("solvers", sys.argv[1]).load()
    spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    import json

    assert callable(solve)
    assert kind.name
    print(json.dumps({"event": "first", "imports": spent}))


if __name__ == "__main__":
    main()
