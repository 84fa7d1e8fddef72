"""`python -m benchmarks.compression`: every point of every curve, then the tables and the plots."""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from allocator.errors import AllocatorError
from benchmarks.command import matches
from benchmarks.compression import report
from benchmarks.compression.curves import OWN, Task, tasks
from benchmarks.compression.points import Point
from benchmarks.store import digest

OUT = Path("benchmark-out/compression")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked and not there yet, then print; exit code 0, 1 if one failed, 2 for what cannot be meant."""
    options = _parser().parse_args(argv)
    wanted = [task for task in tasks() if matches(task.name, options.points)]
    if not wanted:
        print("error: nothing matches --points; see --list", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(task.name for task in wanted))
        return 0
    try:
        failed = _measure(wanted, options.out)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    report.write(wanted, lambda task: place(options.out, task), options.out, options.write)
    return 1 if failed else 0


def place(out: Path, task: Task) -> Path:
    """Of a point of the present version."""
    return _version(out, task.own) / f"{task.name.replace(',', '').replace(' ', '-')}.npz"


def _version(out: Path, sources: Sequence[str]) -> Path:
    """Where what rests on these sources lies."""
    return out / "points" / hashlib.sha256(f"{digest(*sources)}".encode()).hexdigest()[:12]


def _measure(wanted: Sequence[Task], out: Path) -> int:
    """How many points failed."""
    failed = 0
    subject, workload = None, None
    for number, task in enumerate(wanted, 1):
        path = place(out, task)
        none = path.with_suffix(".none")
        if path.exists() or none.exists():
            continue
        started = time.perf_counter()

        def say(text: str, head: str = f"[{number}/{len(wanted)}] {task.name}") -> None:
            print(f"{head}: {text}", file=sys.stderr, flush=True)

        try:
            if workload is None or subject is not task.subject:
                subject, workload = task.subject, task.subject.load()
            own = _version(out, OWN) / f"{task.subject.name}-{task.curve.partition(',')[0]}"
            point = task.measure(workload, own, say)
        except AllocatorError as error:
            failed += 1
            say(f"failed: {error}")
            continue
        if point is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            none.touch()
            say("nothing is that small")
            continue
        point.save(path)
        say(f"{report.shown(task, Point.load(path))} ({time.perf_counter() - started:.0f} s)")
    return failed


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.compression", description=__doc__.partition("\n")[0])
    made.add_argument("--points", help="comma-separated shell patterns of points; see --list")
    made.add_argument("--out", type=Path, default=OUT, help="folder of the results; default %(default)s")
    made.add_argument("--write", type=Path, help="also write tables and plots for the docs into this folder")
    made.add_argument("--list", action="store_true", help="print the points and stop")
    return made
