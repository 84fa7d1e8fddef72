"""What a row is given: the network, what was measured of it already, and a place to keep more."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec
import torch

from allocator import __version__
from allocator.errors import UsageError
from benchmarks.profilers import draws, truth
from benchmarks.profilers.predictors import MAKERS, Predictor
from benchmarks.profilers.subject import Subject

ROOT = Path(__file__).parents[2]
SOURCES = ("allocator", "profilers", "solvers", "benchmarks/profilers")
OF_TRUTH = ("allocator/actions", "allocator/applier", "allocator/tasks", "allocator/demos")
"""Measured divergences do not depend on statistics: a change of these alone makes them stale."""


class Line(msgspec.Struct, kw_only=True):
    """One finished row, or one measured fact that rows share; a line of results.jsonl."""

    name: str
    network: str
    version: str
    values: dict[str, float] = {}
    facts: list[float] = []
    note: str = ""
    machine: str = ""
    load: float = 0.0
    date: str = ""


class Store:
    """results.jsonl: the last line of each (name, network) counts, if it is of the present version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[tuple[str, str], Line] = {}
        for text in path.read_bytes().splitlines() if path.exists() else []:
            try:
                line = msgspec.json.decode(text, type=Line)
            except msgspec.DecodeError:
                continue  # cut short by a kill
            self.lines[line.name, line.network] = line

    def get(self, name: str, network: str, version: str) -> Line | None:
        """What is kept, None if it is stale or missing."""
        line = self.lines.get((name, network))
        return line if line is not None and line.version == version else None

    def add(self, line: Line) -> None:
        """Keep a line at once, on a line of its own even where the last one was cut short."""
        line.machine, line.date = machine(), datetime.now(UTC).isoformat(timespec="seconds")
        line.load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0
        self.lines[line.name, line.network] = line
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            if file.seek(0, 2) and (file.seek(-1, 2), file.read())[1] != b"\n":
                file.write(b"\n")
            file.write(msgspec.json.encode(line) + b"\n")


class Bench:
    """One network under measurement; what takes long is done once and kept.

    Args:
        network: a name, for the store.
        load: makes the subject, when it is first needed.
        store: of finished rows and facts.
        each: random allocations per range of widths.
    """

    def __init__(self, network: str, load: Callable[[], Subject], store: Store, each: int = draws.EACH) -> None:
        self.network = network
        self.store = store
        self.each = each
        self._load = load
        self._subject: Subject | None = None
        self._predictors: dict[str, Predictor] = {}

    @property
    def subject(self) -> Subject:
        """The network with its data."""
        if self._subject is None:
            self._subject = self._load()
        return self._subject

    def predictor(self, name: str) -> Predictor:
        """One of `predictors.MAKERS`, made once."""
        if name not in self._predictors:
            self._predictors[name] = maker(name)(self.subject)
        return self._predictors[name]

    def single_kl(self) -> list[float]:
        """Held-out divergence of every choice alone, in the order of the problem's rows."""
        return self._fact("single_kl", lambda held, s: truth.kls(held, truth.singles(s.plain)))

    def whole_kl(self) -> list[float]:
        """Held-out divergence of the random allocations."""
        return self._fact(
            "whole_kl", lambda held, s: truth.kls(held, truth.wholes(s.plain, draws.allocations(s, self.each)))
        )

    def _fact(self, name: str, measured: Callable[[truth.Held, Subject], list[float]]) -> list[float]:
        version = f"{digest(*OF_TRUTH)} {self.subject.samples} {self.each} {torch.__version__}"
        kept = self.store.get(name, self.network, version)
        if kept is None:
            held = truth.Held(self.subject.workload, self.subject.held_out)
            facts = measured(held, self.subject)
            kept = Line(name=name, network=self.network, version=version, facts=facts)
            self.store.add(kept)
        return kept.facts


def maker(name: str) -> Callable[[Subject], Predictor]:
    """What makes a predictor.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in MAKERS:
        raise UsageError(f"no predictor is called {name!r}, only {', '.join(MAKERS)}")
    return MAKERS[name]


def version() -> str:
    """What the result of a row depends on."""
    return f"{__version__}+{digest(*SOURCES)}, torch {torch.__version__}"


@cache
def digest(*folders: str) -> str:
    """Of all sources and checkpoints in these folders of the repository."""
    files = [file for folder in folders for file in (ROOT / folder).rglob("*") if file.suffix in _KINDS]
    whole = hashlib.sha256()
    for file in sorted(files):
        whole.update(f"{file.relative_to(ROOT)}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return whole.hexdigest()[:12]


_KINDS = frozenset((".py", ".c", ".h", ".safetensors"))


def machine() -> str:
    """In words."""
    return (
        f"{os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()}"
    )
