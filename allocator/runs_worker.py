"""The process of one measured run: reads a solver and a problem, solves once, and says what came out.

Started as `python -m allocator.runs_worker`. What libraries print on stdout goes where stderr goes. It ends with
its parent.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import numpy as np

SAID = ("status", "claim", "objective", "loss", "proven_bound", "claimed_bound", "gap", "limit")


def main() -> None:
    """One job from stdin, one event per line on stdout."""
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    options: dict[str, Any] = pickle.load(sys.stdin.buffer)
    try:
        solver, problem = pickle.load(sys.stdin.buffer), pickle.load(sys.stdin.buffer)
        said = _solve(solver, problem, options, events)
    except Exception as error:  # a plug-in may raise anything, and its module may not come in
        said = _described(error)
    _say(events, **said)
    events.flush()


def _solve(solver: Any, problem: Any, options: dict[str, Any], events: IO[bytes]) -> dict[str, Any]:
    from allocator.errors import UnavailableError
    from allocator.isolation import warm_up
    from allocator.pipeline import solve

    if solver.isolate:
        warm_up(solver, options["threads"])
    else:
        for module in solver.imports:
            try:
                import_module(module)
            except ImportError as error:
                raise UnavailableError(f"solver {solver.name!r} is unavailable: {error}") from error
    _say(events, event="started")
    before = _cpu(solver.isolate)
    solution = solve(problem, solver, **options)
    after = _cpu(solver.isolate)
    taken = None if solution.allocation is None else solution.allocation.choice.astype(np.int32)
    return {
        "event": "solution",
        **{name: getattr(solution, name) for name in SAID},
        "reasons": list(solution.reasons),
        "choice": None if taken is None else base64.b64encode(taken.tobytes()).decode(),
        "seconds": solution.run["wall_s"],
        "cpu_s": None if before is None or after is None else after - before,
        "peak_bytes": max(map(_high_water, [os.getpid(), *_children()]), default=0),
    }


def _described(error: Exception) -> dict[str, Any]:
    from allocator.errors import AllocatorError, SolverError

    ours = isinstance(error, AllocatorError) and not isinstance(error, SolverError)
    text = str(error) if isinstance(error, AllocatorError) else f"{type(error).__name__}: {error}"
    return {"event": "refused" if ours else "crashed", "reason": text}


def _say(events: IO[bytes], **said: Any) -> None:
    events.write(json.dumps(said, default=lambda x: x.item() if isinstance(x, np.generic) else str(x)).encode() + b"\n")
    events.flush()


def _children() -> list[int]:
    found: list[int] = []
    for listed in Path("/proc/self/task").glob("*/children"):
        found += map(int, listed.read_text().split())
    return found


def _cpu(with_worker: bool) -> float | None:
    """CPU seconds of this process and, where one solves for it, of its worker; None where that cannot be read."""
    if not with_worker:
        return time.process_time()
    if not Path("/proc/self/stat").exists():
        return None
    import resource

    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    for pid in _children():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system time
    return total


def _high_water(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def _end_with(parent: int) -> None:
    """Nobody waits for a run whose parent is gone."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


if __name__ == "__main__":
    main()
