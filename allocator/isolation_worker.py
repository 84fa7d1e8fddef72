"""The other end of `allocator.isolation`: a process that imports libraries once and solves what it is handed.

Started as `python -m allocator.isolation_worker`. It ends when its parent does, ignores Ctrl-C (the parent
kills it), and keeps its two pipes to itself: what libraries print on stdout goes where stderr goes.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import sys
import threading
import time
from importlib import import_module
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

HEAD = struct.Struct("<Q")
OWN = ("UsageError", "UnsupportedError", "UnavailableError", "SolverError")


def write_frame(pipe: IO[bytes], frame: bytes) -> None:
    """Eight bytes of length, then the frame."""
    pipe.write(HEAD.pack(len(frame)))
    pipe.write(frame)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes:
    """One frame; `EOFError` where the other end is gone."""
    head = pipe.read(HEAD.size)
    size = HEAD.unpack(head)[0] if len(head) == HEAD.size else 0
    frame = pipe.read(size)
    if len(head) < HEAD.size or len(frame) < size:
        raise EOFError
    return frame


class Service:
    """Answers requests one after another; replies may be sent from any thread."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self.requests = requests
        self.replies = replies
        self.inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.lock = threading.Lock()

    def send(self, kind: str, value: Any = None) -> None:
        """One reply to the parent."""
        frame = pickle.dumps((kind, value), protocol=5)
        with self.lock:
            write_frame(self.replies, frame)

    def listen(self) -> None:
        """Queue requests; when the parent closes the pipe, end the process whatever it is doing."""
        try:
            while True:
                self.inbox.put(read_frame(self.requests))
        except (EOFError, OSError):
            os._exit(0)

    def serve(self) -> None:
        """Work through the queue for ever."""
        while True:
            frame = self.inbox.get()
            try:
                kind, value = pickle.loads(frame)
                self.prepare(*value) if kind == "prepare" else self.solve(*value)
            except Exception as error:  # whatever a backend raises belongs to the parent
                self.send(*_described(error))

    def prepare(self, path: list[str], imports: tuple[str, ...]) -> None:
        """Take over the parent's search path and import the heavy modules."""
        sys.path[:] = path
        try:
            for module in imports:
                import_module(module)
        except Exception as error:  # a broken package raises anything
            self.send("broken", f"{type(error).__name__}: {error}")
        else:
            self.send("ready")

    def solve(self, solver: Any, problem: Any, options: dict[str, Any], start: NDArray[np.int64] | None) -> None:
        """One job; the clock of its limits starts here."""
        from allocator.protocols import Limits

        os.ftruncate(2, 0)  # forget what earlier jobs printed
        os.lseek(2, 0, os.SEEK_SET)
        self.send("started")
        limits = Limits(report=lambda choice: self.send("incumbent", np.array(choice, np.int64)), **options)
        self.send("answer", solver.solve(problem, limits, start))


def _described(error: Exception) -> tuple[str, Any]:
    """An error of ours as (raised, (class, text)), any other as (failed, text)."""
    from allocator.errors import AllocatorError

    text = str(error)
    if isinstance(error, AllocatorError):
        name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in OWN), "SolverError")
        return "raised", (name, text)
    if isinstance(error, MemoryError):
        text = text or "out of memory"
    return "failed", f"{type(error).__name__}: {text}" if text else type(error).__name__


def _watch(parent: int) -> None:
    """End with the parent even where a forked sibling of ours still holds the pipe."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


def main() -> None:
    """Take the pipes away from stdin and stdout, then serve."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    service = Service(requests, replies)
    threading.Thread(target=service.listen, daemon=True).start()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    service.serve()


if __name__ == "__main__":
    main()
