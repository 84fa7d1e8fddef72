"""Runs a measuring process under a limit on time and on memory, and keeps what it said until then.

Memory is what the process and its descendants hold resident, looked at ten times a second (Linux): a limit on
the address space would refuse libraries that reserve far more than they use, OR-Tools among them. Elsewhere
only time is limited.
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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from allocator.runs import resident_bytes

POLL = 0.1
QUOTED = 500
ROOT = Path(__file__).parents[2]
PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass(frozen=True)
class Ended:
    """events: what the process said. killed: "time", "memory" or None. error: its last words if it failed."""

    events: Sequence[Mapping[str, Any]]
    killed: str | None
    error: str
    peak_bytes: int

    def first(self, event: str) -> Mapping[str, Any] | None:
        """The first finding of a kind."""
        return next((e for e in self.events if e["event"] == event), None)


def run_process(module: str, argument: str, env: Mapping[str, str], seconds: float, most_bytes: int) -> Ended:
    """`python -m module argument` in a session of its own, so that its workers end with it.

    Args:
        module: prints one JSON object per line, each with "event".
        argument: its argv[1].
        env: added to the environment.
        seconds: until it is killed.
        most_bytes: resident, with all descendants, until it is killed.
    """
    events: list[Mapping[str, Any]] = []
    whole = {**os.environ, **env}
    whole["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), whole.get("PYTHONPATH"))))
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, argument],
            stdout=subprocess.PIPE,
            stderr=log,
            env=whole,
            start_new_session=True,
        )
        reader = threading.Thread(target=_read, args=(process, events), daemon=True)
        reader.start()
        try:
            killed, peak = _watch(process, seconds, most_bytes)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(timeout=5)
        log.seek(0)
        said = log.read().decode(errors="replace").strip()
    failed = killed is None and process.returncode != 0
    return Ended(events, killed, said[-QUOTED:] if failed else "", peak)


def _read(process: subprocess.Popen[bytes], events: list[Mapping[str, Any]]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # a library that prints
                found = json.loads(line)
                if isinstance(found, dict) and "event" in found:
                    events.append(found)


def _watch(process: subprocess.Popen[bytes], seconds: float, most_bytes: int) -> tuple[str | None, int]:
    deadline = time.monotonic() + seconds
    peak = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=POLL)
            return None, peak
        peak = max(peak, resident_bytes(process.pid))
        if peak > most_bytes:
            return "memory", peak
        if time.monotonic() > deadline:
            return "time", peak
