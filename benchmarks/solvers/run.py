"""`python -m benchmarks.solvers`: every case through every backend, each measured in processes of its own.

In-process backends: in one process the backend's call comes first, in another `allocator.solve` does, a third
reads memory; so both figures are first calls. Isolated ones have a worker that has imported their library
before; their clock runs inside it. One thread, and nothing else should run: CPU seconds move by a tenth on a
busy machine, wall seconds by anything.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from allocator.errors import AllocatorError
from benchmarks.solvers import records, report
from benchmarks.solvers.case import Case
from benchmarks.solvers.instances import pick, write
from benchmarks.solvers.measure import Job
from benchmarks.solvers.plan import FRONTIER, SOLVERS, Entrant, asked_by_goals, entrants, order, rounds, why_not
from benchmarks.solvers.records import Record, Seconds, Times
from benchmarks.solvers.tables import duration
from benchmarks.solvers.watch import Ended, run_process

OUT = Path("benchmark-out/solvers")
BUILD_S = 120.0
REPEAT_S = 3.0
SHORT_S = 3.0
IMPORTS = 5
QUANTITIES = dict.fromkeys(("call", "library", "whole", "check", "overhead")).keys()
PLACES = {"first": "first", "second": "second", "warm": "best"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked, then write the tables; exit code 0, or 2 for what cannot be meant."""
    options = _parser().parse_args(argv)
    try:
        cases = pick(options.cases, options.quick)
        chosen, missing = entrants(options.solvers)
    except (AllocatorError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for line in missing:
        print(line, file=sys.stderr)
    if options.list:
        for case in cases:
            print(f"{case.key:<28} {case.groups:>9} groups  {case.meaning}")
        return 0
    if options.write is not None:
        for file in write(cases, options.write):
            print(file)
        return 0
    path = options.out / "results.jsonl"
    if path.exists() and not options.resume:
        print(f"error: {path} is there; --resume goes on with it, --out takes another folder", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    kept = {r.key for r in records.load(path)}
    runner = _Runner(
        options.time_limit or (5.0 if options.quick else 60.0),
        options.rounds or (1 if options.quick else 3),
        int(options.memory_limit * 2**30),
    )
    todo = order(cases, chosen)
    if options.goals:
        todo = [(case, entrant) for case, entrant in todo if asked_by_goals(case, entrant)]
    names = dict.fromkeys(e.backend for e in chosen if e.text != FRONTIER)
    try:
        for name in names:
            if ("imports", 0, name, records.version_of(name)) not in kept:
                record = runner.imports(name)
                records.append(path, record)
                print(f"imports {name}: {_told(record)}", file=sys.stderr)
        for i, (case, entrant) in enumerate(todo, 1):
            key = (case.name, case.seed, entrant.text, records.version_of(entrant.backend))
            if key in kept:
                continue
            record = runner.run(case, entrant)
            records.append(path, record)
            print(f"[{i}/{len(todo)}] {case.key} {entrant.text}: {_told(record)}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"interrupted; --resume goes on with {path}", file=sys.stderr)
        return 130
    report.write(options.out, options.figure)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.solvers", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the short list of cases, one round, 5 s")
    parser.add_argument("--goals", action="store_true", help="only what the goals table needs; a quarter of an hour")
    parser.add_argument("--cases", help="comma-separated shell patterns of name or name@seed")
    parser.add_argument("--solvers", default=SOLVERS, help="a,b[option=value],c@numpy; default %(default)s")
    parser.add_argument("--time-limit", type=float, help="seconds per call; default 60, quick 5")
    parser.add_argument("--memory-limit", type=float, default=8.0, help="GiB resident per process; default 8")
    parser.add_argument("--rounds", type=int, help="fresh processes per figure; default 3, quick 1")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of the results; default %(default)s")
    parser.add_argument(
        "--resume", action="store_true", help="skip what the folder already holds, whatever limit it had"
    )
    parser.add_argument("--figure", choices=("first", "second", "best"), default="first", help="judged in the table")
    parser.add_argument("--write", type=Path, help="write the cases to this folder as problem files, and stop")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    return parser


class _Runner:
    def __init__(self, time_limit: float, wanted: int, most_bytes: int) -> None:
        self.time_limit = time_limit
        self.wanted = wanted
        self.most_bytes = most_bytes

    def run(self, case: Case, entrant: Entrant) -> Record:
        """One backend on one case."""
        record = self._empty(case.name, case.seed, entrant.text, entrant.backend)
        record.groups = case.groups
        reason = why_not(case, entrant)
        if reason is not None:
            record.outcome, record.note = "not run", reason
            return record
        tasks = ["frontier"] if entrant.text == FRONTIER else ["whole"] if entrant.mip else ["backend", "whole"]
        for _ in range(rounds(case, entrant, self.wanted)):
            record.rounds += 1
            for task in tasks:
                self._take(record, self._job(case, entrant, task))
                if record.outcome != "ran":
                    return record
            whole = record.seconds("whole")
            if whole is None or whole > SHORT_S:
                break
        if entrant.text != FRONTIER and not entrant.mip:  # a worker's memory is in peak_bytes
            memory = self._job(case, entrant, "memory").first("memory") or {}
            record.extra_bytes, record.whole_extra_bytes = memory.get("extra_bytes"), memory.get("whole_extra_bytes")
        return record

    def imports(self, name: str) -> Record:
        """Import and discovery in fresh processes, the best of five."""
        record = self._empty("imports", 0, name, name)
        env = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for _ in range(IMPORTS):
            ended = run_process("benchmarks.solvers.imports", name, env, BUILD_S, self.most_bytes)
            found = ended.first("first")
            if found is None:
                record.outcome, record.note = "failed", ended.error
                return record
            _add(record.times, "imports", "first", found["imports"])
        return record

    def _empty(self, case: str, seed: int, solver: str, backend: str) -> Record:
        return Record(
            case=case,
            seed=seed,
            solver=solver,
            version=records.version_of(backend),
            outcome="ran",
            time_limit=self.time_limit,
            machine=_machine(),
            load=_load(),
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _job(self, case: Case, entrant: Entrant, task: str) -> Ended:
        job = Job(task=task, case=case.key, solver=entrant.solver, time_limit=self.time_limit, repeat_s=REPEAT_S)
        seconds = BUILD_S + 2 * self.time_limit
        argument = json.dumps(vars(job))
        return run_process("benchmarks.solvers.measure", argument, entrant.environment, seconds, self.most_bytes)

    def _take(self, record: Record, ended: Ended) -> None:
        """Add what one process found."""
        built = ended.first("built") or {}
        record.choices = built.get("choices", record.choices)
        record.input_bytes = built.get("input_bytes", record.input_bytes)
        record.engine = built.get("engine", record.engine)
        record.peak_bytes = max(ended.peak_bytes, record.peak_bytes or 0)
        for event in ended.events:
            place = PLACES.get(event["event"])
            if place is not None:
                for quantity in QUANTITIES & event.keys():
                    _add(record.times, quantity, place, event[quantity])
            if "solution" in event:
                _note(record, event["solution"])
            record.points = event.get("points", record.points)
        for kind in ("declined", "failed"):
            if (found := ended.first(kind)) is not None:
                record.outcome, record.note = kind, found["reason"]
        if record.outcome == "ran" and ended.first("first") is None:
            record.outcome = "killed" if ended.killed else "failed"
            limits = {"time": f"over {self.time_limit:g} s", "memory": f"over {self.most_bytes / 2**30:g} GiB"}
            record.note = limits[ended.killed] if ended.killed else ended.error


def _note(record: Record, solution: Mapping[str, Any]) -> None:
    """Keep the solution of the first call; a later one is the same unless a limit fired."""
    if record.status is None:
        for name in ("status", "claim", "objective", "proven_bound", "claimed_bound", "gap", "limit", "certificate"):
            setattr(record, name, solution[name])
        record.reasons = list(solution["reasons"])
        record.note = "killed at its limit" if solution["killed"] else record.note


def _add(times: dict[str, Times], quantity: str, place: str, spent: Mapping[str, float | None]) -> None:
    """Keep the lesser of what is there and what is new."""
    kept = times.setdefault(quantity, Times())
    wall = spent["wall"]
    assert wall is not None
    new, old = Seconds(spent["cpu"], wall), getattr(kept, place)
    if old is None or _size(new) < _size(old):
        setattr(kept, place, new)


def _size(seconds: Seconds) -> float:
    return seconds.wall if seconds.cpu is None else seconds.cpu


def _told(record: Record) -> str:
    """One line of progress."""
    if record.outcome != "ran":
        return f"{record.outcome}: {record.note}"
    parts = [f"{q} {duration(record.seconds(q))}" for q in ("imports", *QUANTITIES) if q in record.times]
    says = " ".join(filter(None, (record.status, f"(claims {record.claim})" if record.claim else "", record.note)))
    return ", ".join(filter(None, (says, *parts)))


def _load() -> float:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def _machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
