"""One run in a process of its own, under limits on time and on memory, with what it said until it ended.

Memory is what the process and its descendants hold resident, looked at twenty times a second (Linux): a limit on
the address space would refuse libraries that reserve far more than they use, OR-Tools among them. Elsewhere only
time is limited.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

POLL = 0.05
START = 120.0  # seconds until the process says "started": imports, reading the problem
QUOTED = 500
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True)
class Ended:
    """events: what the process said, one mapping each, with "event". killed: "start", "time", "memory" or None.

    error: its last words where it failed. seconds: from "started" (or the beginning) to its end. peak_bytes: the
    largest that was seen resident, descendants included; None where that cannot be looked at.
    """

    events: Sequence[Mapping[str, Any]]
    killed: str | None
    error: str
    seconds: float
    peak_bytes: int | None

    def first(self, event: str) -> Mapping[str, Any] | None:
        """The first thing of a kind that it said."""
        return next((e for e in self.events if e["event"] == event), None)


def run_process(
    module: str,
    payload: Sequence[bytes],
    *,
    env: Mapping[str, str],
    seconds: float | None,
    most_bytes: int | None,
    tick: Callable[[], None] | None = None,
) -> Ended:
    """`python -m module` in a session of its own, so that its workers end with it.

    Args:
        module: reads the payload on stdin, prints one JSON object per line with "event", "started" first.
        payload: pieces, one after another.
        env: added to the environment.
        seconds: after "started", until it is killed; None is no limit.
        most_bytes: resident, with all descendants, until it is killed; None is no limit.
        tick: called at every look.
    """
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    events: list[Mapping[str, Any]] = []
    with tempfile.TemporaryFile() as job, tempfile.TemporaryFile() as log:
        job.writelines(payload)
        job.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=job,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path, **env},
            start_new_session=True,
        )
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout, events), daemon=True)
        reader.start()
        watch = _Watch(process, events)
        try:
            killed = watch.until(seconds, most_bytes, tick)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(timeout=5)
        failed = killed is None and process.returncode != 0
        said = _last_words(log, process.returncode) if failed else ""
    return Ended(events, killed, said, time.monotonic() - watch.started, watch.peak or None)


def _last_words(log: IO[bytes], code: int) -> str:
    log.seek(0)
    said = log.read().decode(errors="replace").strip()[-QUOTED:]
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"its process ended by {how}" + (f"; it last said: {said}" if said else "")


def _read(pipe: IO[bytes], events: list[Mapping[str, Any]]) -> None:
    with pipe:
        for line in pipe:
            with contextlib.suppress(json.JSONDecodeError):
                found = json.loads(line)
                if isinstance(found, dict) and "event" in found:
                    events.append(found)


class _Watch:
    """Looks at a process until it ends or breaks a limit."""

    def __init__(self, process: subprocess.Popen[bytes], events: Sequence[Mapping[str, Any]]) -> None:
        self.process = process
        self.events = events
        self.started = time.monotonic()
        self.peak = 0

    def until(self, seconds: float | None, most_bytes: int | None, tick: Callable[[], None] | None) -> str | None:
        """None at its end, or what it broke."""
        begun = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=POLL)
                return None
            if tick is not None:
                tick()
            if not begun and self.events:
                begun, self.started = True, time.monotonic()
            self.peak = max(self.peak, resident_bytes(self.process.pid))
            if most_bytes is not None and self.peak > most_bytes:
                return "memory"
            spent = time.monotonic() - self.started
            if not begun and spent > START:
                return "start"
            if begun and seconds is not None and spent > seconds:
                return "time"


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants, read from Linux's /proc; 0 where there is none."""
    return sum(_resident(each) for each in _family(pid))


def _family(pid: int) -> Iterator[int]:
    yield pid
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in listed.read_text().split():
                yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
