"""`python -m benchmarks.packing`: how fast weights are packed and unpacked, and in how much memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import command
from benchmarks.command import matches
from benchmarks.goal import HEAD
from benchmarks.packing import report
from benchmarks.packing.goals import ROWS
from benchmarks.store import Line, Store, digest, machine

OUT = Path("benchmark-out/packing")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked, then print the table; exit code 0, or 2 for what cannot be meant."""
    options = command.parser("python -m benchmarks.packing", __doc__.partition("\n")[0], OUT).parse_args(argv)
    wanted = [name for name in ROWS if matches(name, options.rows)]
    if not wanted:
        print("error: nothing matches --rows; see --list", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(wanted))
        return 0
    path = options.out / "results.jsonl"
    if path.exists() and not options.resume:
        print(f"error: {path} is there; --resume goes on with it, --out takes another folder", file=sys.stderr)
        return 2
    store, version = Store(path), _version()
    try:
        for i, name in enumerate(wanted, 1):
            if store.get(name, "", version) is None:
                store.add(Line(name=name, network="", version=version, values=ROWS[name]()))
                print(f"[{i}/{len(wanted)}] {name}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; --resume goes on with {path}", file=sys.stderr)
        return 130
    kept = {name: line for name in ROWS if (line := store.get(name, "", version)) is not None}
    rows = [verdict.cells() for verdict in report.judge(kept)]
    files = (options.out / "goals.md", options.write)
    command.write(report.INTRODUCTION, HEAD, rows, report.remarks(kept), files)
    return 0


def _version() -> str:
    """Changes with whatever a figure depends on."""
    return f"{digest('allocator/applier', 'allocator/actions', 'allocator/engine', 'benchmarks/packing')} {machine()}"
