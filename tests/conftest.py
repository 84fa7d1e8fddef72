"""Shared by all tests: where the golden files are, and how hypothesis runs."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from allocator.testing.depth import DEPTH

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: two threads on a busy core can be ten times slower

GOLDEN = Path(__file__).parent / "golden"

settings.register_profile(
    "allocator",
    deadline=None,  # a busy machine is no failure
    derandomize=DEPTH == 1,  # the same examples for everyone; deeper runs look further each time
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
settings.load_profile("allocator")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as under a shell's `&`: tests of Ctrl-C would wait for ever
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of complete files with known answers."""
    return GOLDEN


@pytest.fixture
def example() -> dict[str, Any]:
    """The complete example problem as plain data, a fresh copy."""
    rows: dict[str, Any] = json.loads((GOLDEN / "example.json").read_text())
    return rows
