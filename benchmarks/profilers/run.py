"""`python -m benchmarks.profilers`: every row on every network, then the table of goals.

One thread. Costs are CPU seconds of this process, in turns with what they are compared with, so a busy machine moves
ratios by a tenth; everything else does not depend on time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from allocator.errors import AllocatorError
from benchmarks import command
from benchmarks.command import matches
from benchmarks.goal import HEAD
from benchmarks.profilers import report
from benchmarks.profilers.bench import Bench, version
from benchmarks.profilers.rows import NETWORKS, ROWS
from benchmarks.profilers.subject import Subject
from benchmarks.store import Line, Store

OUT = Path("benchmark-out/profilers")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked, then print the table; exit code 0, or 2 for what cannot be meant."""
    options = _parser().parse_args(argv)
    wanted = [(n, row) for n, rows in NETWORKS.items() for row in rows if matches(n, options.networks)]
    wanted = [(network, row) for network, row in wanted if matches(row, options.rows)]
    if not wanted:
        print("error: nothing matches --rows and --networks; see --list", file=sys.stderr)
        return 2
    if options.list:
        for network, row in wanted:
            print(f"{network}: {row}")
        return 0
    path = options.out / "results.jsonl"
    if path.exists() and not options.resume:
        print(f"error: {path} is there; --resume goes on with it, --out takes another folder", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    store = Store(path)
    benches = {n: Bench(n, partial(Subject.named, n), store) for n in NETWORKS}
    try:
        for i, (network, row) in enumerate(wanted, 1):
            kept = store.get(row, network, version())
            if kept is None or not kept.values:
                told = measure(benches[network], row)
                print(f"[{i}/{len(wanted)}] {network}: {row}: {told}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; --resume goes on with {path}", file=sys.stderr)
        return 130
    write(store, options.out, options.write)
    return 0


def measure(bench: Bench, row: str) -> str:
    """Measure one row and keep it; what cannot be measured here is kept as a note. Returns a line of progress."""
    started = time.perf_counter()
    line = Line(name=row, network=bench.network, version=version())
    try:
        line.values = dict(ROWS[row](bench))
    except AllocatorError as error:
        line.note = str(error)
    bench.store.add(line)
    shown = ", ".join(f"{key} {value:.4g}" for key, value in line.values.items())
    return f"{shown or f'not measured: {line.note}'} ({time.perf_counter() - started:.0f} s)"


def write(store: Store, out: Path, copy: Path | None = None) -> None:
    """The table on stdout, and as goals.md beside the results (and where `--write` says)."""
    rows = [verdict.cells() for verdict in report.judge(store, version())]
    files = (out / "goals.md", copy)
    command.write(report.INTRODUCTION, HEAD, rows, report.remarks(store, version()), files)


def _parser() -> argparse.ArgumentParser:
    made = command.parser("python -m benchmarks.profilers", __doc__.partition("\n")[0], OUT)
    made.add_argument("--networks", help="comma-separated shell patterns: fashion-resnet20, …")
    return made
