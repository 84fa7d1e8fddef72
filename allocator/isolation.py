"""Runs a solver in a worker process, because its library overruns limits or fights over shared objects.

One worker per process, started on first use and kept: it imports the solver's libraries once, says ready, and
only then gets the problem and starts the clock. Allocations come back as they are found; what has not answered
a quarter of a second after its limit is killed, and the best allocation so far stands.

The two processes talk in pickles over the worker's own stdin and stdout, which no other process holds; what
native code prints goes to a temporary file that is quoted only when the worker dies. Nothing in here needs a
`__main__` guard in the user's script.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from allocator import errors
from allocator.errors import AllocatorError, SolverError, UnavailableError, UsageError
from allocator.isolation_worker import read_frame, write_frame
from allocator.problem import Problem
from allocator.protocols import Limits, Report, Solver
from allocator.solution import Answer

GRACE = 0.25
START = 120.0
POLL = 1.0
QUOTED = 2000
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a worker solved; `choice` is the best allocation [G] that it had sent, or None."""

    def __init__(self, choice: NDArray[np.int64] | None) -> None:
        super().__init__("interrupted while solving")
        self.choice = choice


def solve_isolated(solver: Solver, problem: Problem, limits: Limits, start: NDArray[np.int64] | None = None) -> Answer:
    """`solver.solve(problem, limits, start)` in the worker; `limits.time` counts from the moment it is ready.

    Returns:
        The solver's answer; or, where it had to be killed at its limit + 0.25 s, the last allocation that it
        reported, with limit "time".

    Raises:
        Interrupted: a KeyboardInterrupt that carries the last reported allocation; the worker is gone.
        UnavailableError: an import of the solver fails.
        SolverError: it raised, or its process died; a later call starts a new one.
        AllocatorError: what the solver itself raised of this kind.
    """
    with _checked_out(solver, limits.threads or 1) as worker:
        worker.prepare(solver)
        return worker.solve(solver, problem, limits, start)


def warm_up(solver: Solver, threads: int | None = None) -> None:
    """Start the worker and import the solver's libraries, so that the first `solve_isolated` need not wait."""
    with _checked_out(solver, threads or 1) as worker:
        worker.prepare(solver)


def shutdown() -> None:
    """End the worker, if there is one; the next call starts another."""
    global _worker
    with _lock:
        if _worker is not None:
            _worker.kill()
            _worker = None


class _Worker:
    """The process, and a thread that turns its replies into a queue (pipes have no portable timeout)."""

    def __init__(self, threads: int) -> None:
        if not sys.executable:
            raise SolverError("cannot start a worker process: this Python does not know its own executable")
        self.threads = threads
        self.owing = False  # a request has been sent whose last reply has not come
        self.ready: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        command = [sys.executable, "-P", "-m", "allocator.isolation_worker"]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=_environment(threads)
            )
        except OSError as error:
            raise SolverError(f"cannot start a worker process: {error}") from error
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.requests: IO[bytes] = self.process.stdin
        self.inbox: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        threading.Thread(
            target=_pump, args=(self.process.stdout, self.inbox), name="allocator-worker-replies", daemon=True
        ).start()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def prepare(self, solver: Solver) -> None:
        """Have the worker import what the solver needs."""
        path = _search_path()
        key = (tuple(path), tuple(solver.imports))
        if key in self.ready:
            return
        self._send(solver, ("prepare", (path, key[1])))
        kind, value = self._next(solver, time.monotonic() + START)
        if kind == "ready":
            self.ready.add(key)
            return
        self.kill()
        if kind == "timeout":
            raise UnavailableError(f"solver {solver.name!r} is unavailable: its imports took over {START:.0f} s")
        raise UnavailableError(f"solver {solver.name!r} is unavailable: {value}; install the package or choose another")

    def solve(self, solver: Solver, problem: Problem, limits: Limits, start: NDArray[np.int64] | None) -> Answer:
        """Hand over one job and wait for its answer, its limit or its end."""
        options = {"time": limits.time, "threads": limits.threads, "seed": limits.seed, "gap": limits.gap}
        best: NDArray[np.int64] | None = None
        try:
            self._send(solver, ("solve", (solver, problem, options, start)))
            deadline = None
            while True:
                kind, value = self._next(solver, deadline)
                if kind == "started":
                    deadline = None if limits.time is None else time.monotonic() + limits.time + GRACE
                elif kind == "incumbent":
                    best = value
                    _tell(limits.report, value)
                elif kind == "answer":
                    assert isinstance(value, Answer)
                    return value
                elif kind == "timeout":
                    self.kill()
                    return self._leftover(best, limits.report)
                else:
                    raise self._failure(solver, kind, value)
        except KeyboardInterrupt:
            raise Interrupted(best) from None

    def kill(self) -> None:
        """End the process at once and let go of its pipes."""
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            self.requests.close()
        self.log.close()

    def _send(self, solver: Solver, message: tuple[str, Any]) -> None:
        try:
            frame = pickle.dumps(message, protocol=5)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(
                f"solver {solver.name!r} runs in a worker process, but cannot be sent there: {error}"
            ) from error
        self.owing = True
        try:
            write_frame(self.requests, frame)
        except OSError:
            raise self._death(solver) from None

    def _next(self, solver: Solver, deadline: float | None) -> tuple[str, Any]:
        """The next reply, or ("timeout", None); `SolverError` if the worker died."""
        while True:
            wait = POLL if deadline is None else min(POLL, deadline - time.monotonic())
            try:
                message = self.inbox.get(timeout=max(wait, 0))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    return "timeout", None
                continue
            if message[0] == "gone":
                raise self._death(solver)
            self.owing = message[0] in ("started", "incumbent")
            return message

    def _leftover(self, best: NDArray[np.int64] | None, report: Report | None) -> Answer:
        """What was on its way when the limit fell."""
        while True:
            try:
                kind, value = self.inbox.get(timeout=POLL)
            except queue.Empty:
                break
            if kind == "incumbent":
                best = value
                _tell(report, value)
            elif kind == "answer":
                assert isinstance(value, Answer)
                return value
            elif kind == "gone":
                break
        return Answer(choice=best, limit="time", statistics={"killed": True})

    def _failure(self, solver: Solver, kind: str, value: Any) -> AllocatorError:
        """An exception from the worker: ours come back as they were, others end the worker."""
        if kind == "raised":
            name, text = value
            return _OWN[name](text)
        self.kill()
        return SolverError(f"solver {solver.name!r} failed: {value}; try another solver, or report it with the problem")

    def _death(self, solver: Solver) -> SolverError:
        try:
            code = self.process.wait(timeout=POLL)  # the pipe may end a moment before the process
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.log.seek(0, os.SEEK_END)
        self.log.seek(max(self.log.tell() - QUOTED, 0))
        said = self.log.read().decode(errors="replace").strip()
        self.kill()
        return SolverError(
            f"the process of solver {solver.name!r} died ({_cause(code)}); the next solve starts a new one, another "
            f"solver or a smaller problem may do" + (f". It last said: {said}" if said else "")
        )


_OWN: Mapping[str, type[AllocatorError]] = {
    kind.__name__: kind
    for kind in (errors.UsageError, errors.UnsupportedError, errors.UnavailableError, errors.SolverError)
}
_lock = threading.RLock()
_worker: _Worker | None = None
_busy = False


@contextlib.contextmanager
def _checked_out(solver: Solver, threads: int) -> Iterator[_Worker]:
    """The worker, started if need be, for one caller at a time."""
    global _worker, _busy
    if type(solver).__module__ == "__main__":
        raise UsageError(
            f"solver {solver.name!r} is defined in the script itself, where its worker process cannot find it; "
            "move the class into a module that can be imported"
        )
    with _lock:
        if _busy:
            raise UsageError("a report callback cannot start another solve; let it return first")
        if _worker is not None and (not _worker.alive or _worker.threads != threads):
            _worker.kill()
            _worker = None
        if _worker is None:
            _worker = _Worker(threads)
        _busy = True
        try:
            yield _worker
        finally:
            _busy = False
            if _worker.owing:  # Ctrl-C, or an error in the caller's report: nobody waits for the reply any more
                _worker.kill()


def _forget() -> None:
    """After a fork the worker belongs to the parent, and the lock may be held by a thread that is not here."""
    global _lock, _worker, _busy
    _lock, _worker, _busy = threading.RLock(), None, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(shutdown)


def _pump(replies: IO[bytes], inbox: queue.SimpleQueue[tuple[str, Any]]) -> None:
    with replies:
        while True:
            try:
                frame = read_frame(replies)
            except (EOFError, OSError):
                return inbox.put(("gone", None))
            try:
                inbox.put(pickle.loads(frame))
            except Exception as error:  # an answer that holds what this process cannot import
                inbox.put(("failed", f"its answer cannot be read: {type(error).__name__}: {error}"))


def _tell(report: Report | None, choice: NDArray[np.int64]) -> None:
    if report is not None:
        report(choice)


def _search_path() -> list[str]:
    return [entry or os.getcwd() for entry in sys.path if isinstance(entry, str)]


def _environment(threads: int) -> dict[str, str]:
    chosen = dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"OMP_WAIT_POLICY": "passive"}
    return {**os.environ, **chosen, "PYTHONPATH": os.pathsep.join(_search_path())}


def _cause(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
    return f"{name}, most likely out of memory" if name == "SIGKILL" else name
