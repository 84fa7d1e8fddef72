"""`python -m benchmarks.interactions`: every piece of every row in a process of its own, then the table of goals."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import command
from benchmarks.command import matches
from benchmarks.goal import HEAD
from benchmarks.interactions import report
from benchmarks.interactions.measure import measured
from benchmarks.interactions.pieces import Piece, Settings
from benchmarks.interactions.rows import ROWS
from benchmarks.store import Line, Store

OUT = Path("benchmark-out/interactions")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked, then print the table; exit code 0, or 2 for what cannot be meant."""
    options = _parser().parse_args(argv)
    wanted = list(_pick(options.rows))
    if not wanted:
        print("error: nothing matches --rows; see --list", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{piece.row}: {piece.name}" for piece in wanted))
        return 0
    path = options.out / "results.jsonl"
    if path.exists() and not options.resume:
        print(f"error: {path} is there; --resume goes on with it, --out takes another folder", file=sys.stderr)
        return 2
    store, settings = Store(path), Settings(out=str(options.out), long=options.long, limit=options.time_limit)
    try:
        for i, piece in enumerate(wanted, 1):
            kept = store.get(piece.row, piece.name, piece.version(settings))
            if kept is None or not kept.values:
                told = measure(store, piece, settings)
                print(f"[{i}/{len(wanted)}] {piece.row}: {piece.name}: {told}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(f"interrupted; --resume goes on with {path}", file=sys.stderr)
        return 130
    rows = [verdict.cells() for verdict in report.judge(store, settings)]
    files = (options.out / "goals.md", options.write)
    command.write(report.INTRODUCTION.format(long=settings.long), HEAD, rows, report.remarks(store, settings), files)
    return 0


def measure(store: Store, piece: Piece, settings: Settings) -> str:
    """Measure one piece and keep it; what cannot be measured here is kept as a note. Returns a line of progress."""
    started = time.perf_counter()
    found = measured(piece, settings)
    version = piece.version(settings)
    line = Line(name=piece.row, network=piece.name, version=version, values=found.values, facts=found.facts)
    line.note = found.note
    store.add(line)
    shown = ", ".join(f"{key} {value:.4g}" for key, value in line.values.items())
    return f"{shown or f'not measured: {line.note}'} ({time.perf_counter() - started:.0f} s)"


def _pick(patterns: str | None) -> Iterator[Piece]:
    """Pieces whose row, or "row: piece", is meant."""
    for row in ROWS.values():
        for piece in row.pieces:
            if matches(row.name, patterns) or matches(f"{row.name}: {piece.name}", patterns):
                yield piece


def _parser() -> argparse.ArgumentParser:
    made = command.parser("python -m benchmarks.interactions", __doc__.partition("\n")[0], OUT)
    made.add_argument("--long", type=float, default=600.0, help="seconds of a long run; default %(default)g")
    made.add_argument("--time-limit", type=float, default=60.0, help="seconds of each chain; default %(default)g")
    return made
